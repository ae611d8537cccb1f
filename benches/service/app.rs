//! A small service and its client in one process. An order arrives as JSON, and the answer is an invoice as JSON.

use std::net::Ipv4Addr;

use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Deserialize)]
struct Order {
    customer: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    article: String,
    quantity: u32,
    price: f64,
}

#[derive(Serialize)]
struct Invoice {
    customer: String,
    lines: Vec<Item>,
    total: f64,
}

#[derive(Serialize)]
struct Item {
    text: String,
    price: f64,
}

async fn invoice(Json(order): Json<Order>) -> Json<Invoice> {
    let item = |line: &Line| Item {
        text: format!("{} x {}", line.quantity, line.article),
        price: f64::from(line.quantity) * line.price,
    };
    let lines: Vec<_> = order.lines.iter().map(item).collect();
    let total = lines.iter().map(|line| line.price).sum();
    Json(Invoice { customer: order.customer, lines, total })
}

fn request(lines: usize) -> Vec<u8> {
    let lines: Vec<_> = (1..=lines)
        .map(|n| {
            format!(r#"{{"article":"A reasonably named thing, number {n}","quantity":{n},"price":{n}.99}}"#)
        })
        .collect();
    let body = format!(r#"{{"customer":"Somebody & Daughters, Ltd.","lines":[{}]}}"#, lines.join(","));
    let length = body.len();
    let head = "POST /invoice HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: application/json";
    format!("{head}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Serves the number of requests and lines in the program's arguments, and calls `now_and_then` every hundred requests, with
/// their number so far.
pub(crate) fn run(served_by: impl AsyncFnOnce(TcpListener, Router), mut now_and_then: impl FnMut(usize)) {
    let argument = |index| std::env::args().nth(index).and_then(|number| number.parse().ok());
    let (Some(count), Some(lines)) = (argument(1), argument(2)) else {
        panic!("how many requests of how many lines?");
    };
    // Services have more than one thread, and glibc takes no locks in a program that has only one.
    std::thread::spawn(std::thread::park);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        served_by(listener, Router::new().route("/invoice", post(invoice))).await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = request(lines);
        let mut answer = vec![0; 64 * 1024];
        for number in 1..=count {
            stream.write_all(&request).await.expect("sent");
            let mut length = 0;
            while !answer[..length].ends_with(b"}") {
                length += stream.read(&mut answer[length..]).await.expect("an answer");
            }
            assert!(answer.starts_with(b"HTTP/1.1 200"));
            if number % 100 == 0 {
                now_and_then(number);
            }
        }
    });
}
