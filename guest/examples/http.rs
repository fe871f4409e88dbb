//! HTTP over the card with the usual crates: an axum server and a hyper client, none of which knows what carries them.
//!
//! ```text
//! cargo run -p toe-guest --features tokio --example http -- serve 0.0.0.0:8080
//! cargo run -p toe-guest --features tokio --example http -- get 192.0.2.1:8080 /
//! ```
//!
//! All that they need is what stands between the two lines below: a listener for axum, and `TokioIo` around a stream for
//! hyper.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use toe_guest::tokio::{TcpListener, TcpStream};

// ----

/// A listener as axum wants it.
struct Listener(TcpListener);

impl axum::serve::Listener for Listener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                // Out of descriptors, most of the time: some will be given back.
                Err(error) => {
                    eprintln!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }
}

// ----

async fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    eprintln!("listening on {} ({})", listener.get_ref().local_addr()?, listener.get_ref().offload());
    let app =
        Router::new().route("/", get(async || "hello from the card\n")).route("/echo", post(async |body: Bytes| body));
    axum::serve(Listener(listener), app).await
}

async fn fetch(address: SocketAddr, path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(address).await?;
    eprintln!("connected to {address} ({})", stream.get_ref().offload());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    eprintln!("{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    print!("{}", String::from_utf8_lossy(&body));
    drop(sender);
    Ok(connection.await??)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["serve", address] => match address.parse() {
            Ok(address) => serve(address).await.map_err(Into::into),
            Err(error) => Err(format!("{address}: {error}").into()),
        },
        ["get", address, path] => match address.parse() {
            Ok(address) => fetch(address, path).await,
            Err(error) => Err(format!("{address}: {error}").into()),
        },
        _ => {
            eprintln!("http: give `serve ADDRESS:PORT` or `get ADDRESS:PORT PATH`");
            return ExitCode::from(2);
        }
    };
    toe_guest::close_all(Duration::from_secs(5));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::FAILURE
        }
    }
}
