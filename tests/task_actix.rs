//! The example of actix-web names its requests.

use std::process::Command;

#[test]
fn the_middleware_names_requests_by_method_and_route() {
    let example = support::built::build(&["-p", "actix_example"]).join("actix_service");
    let output = Command::new(example).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.contains(&"GET /order/{id}: 3 requests"), "{text}");
    assert!(lines.contains(&"no route: 1 requests"), "{text}");
    assert!(!text.contains("secret") && !text.contains("/order/1"), "{text}");
}
