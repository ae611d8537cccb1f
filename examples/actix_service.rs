//! Names the requests of an actix-web service by method and route.
//!
//! `cargo run -p actix_example`
//!
//! The service sends itself a few requests and prints what was counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpServer, web};
use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};
use opentelemetry_instrumentation_runtime::{CountingAllocator, RuntimeMetrics, TaskExt};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The middleware: counts the handling of each request as a task of the name `GET /order/{id}`.
///
/// The task ends with the handler. A streamed body is polled later, so that its work is not counted. To count it, poll the
/// stream in a task with a name, which `actix_web::rt::spawn` starts, and send its items through a channel.
async fn name_requests(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    // Never the raw path or an unknown method: a client could use up the names of the process.
    let name = match (METHODS.iter().find(|known| *known == request.method()), request.match_pattern()) {
        (Some(method), Some(route)) => format!("{method} {route}"),
        _ => String::from("no route"),
    };
    next.call(request).with_task_name(name).await
}

async fn order(id: web::Path<u64>) -> String {
    format!("order {id}")
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let metrics = RuntimeMetrics::builder().build(&NoopMeterProvider::new().meter("actix_service"));
    let watched = metrics.clone();
    let server = HttpServer::new(move || {
        // actix-web runs one runtime for each worker, which calls this function.
        watched.watch_current_runtime("actix");
        App::new().wrap(from_fn(name_requests)).route("/order/{id}", web::get().to(order))
    });
    let server = server.workers(2).bind("127.0.0.1:0")?;
    let addresses = server.addrs();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);

    for path in ["/order/1", "/order/2", "/order/3", "/secret"] {
        for address in addresses.clone() {
            web::block(move || get(address, path)).await.map_err(std::io::Error::other)??;
        }
    }
    handle.stop(true).await;
    for point in metrics.read("rust.task.spawned").iter().flat_map(|reading| reading.points()) {
        if let Some(name) = point.attributes().get("rust.task.name") {
            println!("{name}: {} requests", point.value().as_u64().unwrap_or_default());
        }
    }
    Ok(())
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    write!(connection, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut response = String::new();
    connection.read_to_string(&mut response)?;
    Ok(response)
}
