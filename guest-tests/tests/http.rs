//! HTTP over the card, with hyper and axum on Tokio, against the Linux kernel; and the card's connections as it lists them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::routing::{get, post};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use toe_guest::tokio::{TcpListener, TcpStream};
use toe_guest_tests::bytes::{Pattern, Sum};
use toe_guest_tests::net::{GUEST_V4, GUEST_V6, PEER_V4, PEER_V6};
use toe_guest_tests::{Bench, BenchOptions, peers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1 << 20;

/// A server of which the card knows nothing, or which knows nothing of the card.
fn app() -> Router {
    let hello = async || "hello\n";
    Router::new()
        .route("/", get(hello))
        .route("/echo", post(async |body: Bytes| body))
        .layer(axum::extract::DefaultBodyLimit::max(16 * MIB))
}

struct OnCard(TcpListener);

impl axum::serve::Listener for OnCard {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        self.0.accept().await.expect("accept")
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// One request over hyper.
async fn post_over<I>(io: I, body: Bytes) -> Result<Bytes>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post("/echo").header("host", "toe").body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    drop(sender);
    connection.await??;
    Ok(body)
}

fn pattern(seed: u64, bytes: usize) -> Result<Bytes> {
    let mut all = vec![0; bytes];
    Pattern::new(seed).read_exact(&mut all)?;
    Ok(all.into())
}

#[test]
fn a_hyper_client_on_the_card_talks_to_an_axum_server_in_the_kernel() -> Result<()> {
    let bench = Bench::start(&BenchOptions::default())?;
    for (seed, ip) in [(1, PEER_V4), (2, PEER_V6)] {
        let listener = bench.namespace.enter(|| Ok(std::net::TcpListener::bind((ip, 0))?))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        runtime()?.block_on(async {
            let server =
                tokio::spawn(async move { axum::serve(tokio::net::TcpListener::from_std(listener)?, app()).await });
            let stream = TcpStream::connect_with(bench.options().clone(), address).await?;
            ensure!(stream.get_ref().offload().is_card(), "not on the card");
            let sent = pattern(seed, 8 * MIB)?;
            let received = post_over(stream, sent.clone()).await?;
            ensure!(received == sent, "the echo differs: {} bytes", received.len());
            server.abort();
            Ok(())
        })?;
    }
    bench.finish(&[])
}

#[test]
fn an_axum_server_on_the_card_answers_hyper_in_the_kernel() -> Result<()> {
    let bench = Bench::start(&BenchOptions::default())?;
    for ip in [GUEST_V4, GUEST_V6] {
        runtime()?.block_on(async {
            let listener = TcpListener::bind_with(bench.options().clone(), (ip, 0)).await?;
            ensure!(listener.get_ref().offload().is_card(), "not on the card");
            let address = SocketAddr::new(ip, listener.get_ref().local_addr()?.port());
            let server = tokio::spawn(async move { axum::serve(OnCard(listener), app()).await });
            // Several at once, so that one task waits while another goes on.
            let mut clients = Vec::new();
            for seed in 0..4 {
                let stream = connect_in(&bench, address).await?;
                clients.push(tokio::spawn(async move {
                    let sent = pattern(seed, 2 * MIB)?;
                    let received = post_over(stream, sent.clone()).await?;
                    ensure!(received == sent, "the echo differs: {} bytes", received.len());
                    Ok(())
                }));
            }
            for client in clients {
                client.await??;
            }
            server.abort();
            Ok::<_, anyhow::Error>(())
        })?;
    }
    bench.finish(&[])
}

/// A socket of the namespace that connects.
async fn connect_in(bench: &Bench, address: SocketAddr) -> Result<tokio::net::TcpStream> {
    let socket = bench.namespace.enter(|| {
        Ok(if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? })
    })?;
    Ok(socket.connect(address).await?)
}

#[test]
fn halves_close_one_after_the_other_and_a_reset_is_told() -> Result<()> {
    let bench = Bench::start(&BenchOptions::default())?;
    let peer = peers::answer_at_end(&bench.namespace, PEER_V4, 1)?;
    runtime()?.block_on(async {
        let mut stream = TcpStream::from_std(bench.connect(peer.address)?)?;
        let sent = pattern(5, MIB)?;
        stream.write_all(&sent).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(Sum::parse(&answer) == Some(Sum::of_pattern(5, MIB as u64)), "the answer was {answer}");
        Ok(())
    })?;
    peer.join()?;
    let peer = peers::reset_after(&bench.namespace, PEER_V4, 1000)?;
    runtime()?.block_on(async {
        let mut stream = TcpStream::from_std(bench.connect(peer.address)?)?;
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let endless = pattern(6, MIB)?;
        // Both who read and who write are woken by it.
        let writing = async {
            loop {
                if let Err(error) = writer.write_all(&endless).await {
                    return error.kind();
                }
            }
        };
        let reading = async { reader.read(&mut [0; 16]).await.map_err(|error| error.kind()) };
        let (wrote, read) = tokio::join!(writing, reading);
        ensure!(wrote == std::io::ErrorKind::ConnectionReset, "writing: {wrote}");
        ensure!(read == Err(std::io::ErrorKind::ConnectionReset), "reading: {read:?}");
        Ok(())
    })?;
    peer.join()?;
    bench.finish(&["tcp-resets"])
}

#[test]
fn the_card_lists_what_lives_on_it_and_whose_it_is() -> Result<()> {
    let bench = Bench::start(&BenchOptions::default())?;
    let ends = |s: &toe_guest::SocketEntry| (SocketAddr::from(s.info.local), SocketAddr::from(s.info.remote));
    let listener = bench.listen(GUEST_V6)?;
    let peer = peers::echo(&bench.namespace, PEER_V4, 40)?;
    let mut streams = (0..40).map(|_| bench.connect(peer.address)).collect::<Result<Vec<_>, _>>()?;
    streams[7].write_all(b"some bytes")?;
    streams[7].read_exact(&mut [0; 10])?;
    let all = bench.station().card().sockets()?;
    let our_name = std::fs::read_to_string("/proc/self/comm")?;
    for socket in &all {
        ensure!(socket.pid == std::process::id(), "{socket:?}");
        ensure!(socket.name() == our_name.trim_end().as_bytes(), "{socket:?}");
    }
    let listening: Vec<_> = all.iter().filter(|s| s.info.tcp_state == 10).collect();
    let [listening] = listening[..] else { anyhow::bail!("{} listeners", listening.len()) };
    ensure!(ends(listening).0 == SocketAddr::new(GUEST_V6, listener.local_addr()?.port()), "{listening:?}");
    ensure!(all.len() == 41, "{} sockets", all.len());
    for stream in &streams {
        let is = |s: &&toe_guest::SocketEntry| {
            ends(s) == stream.local_addr().and_then(|l| Ok((l, stream.peer_addr()?))).unwrap_or(ends(listening))
        };
        let socket = all.iter().find(is).context("a connection is not listed")?;
        let info = stream.info()?;
        ensure!((socket.info.tcp_state, socket.info.connection) == (1, info.connection), "{socket:?}");
    }
    let told = |ip: IpAddr| all.iter().filter(|s| ends(s).0.ip() == ip).count();
    ensure!((told(GUEST_V4), told(GUEST_V6)) == (40, 1));
    let info = streams[7].info()?;
    let seventh = all.iter().find(|s| s.info.connection == info.connection).context("not listed")?;
    ensure!((seventh.info.bytes_received, seventh.info.bytes_acknowledged) == (10, 10), "{seventh:?}");
    drop(streams);
    drop(listener);
    peer.join()?;
    // They are TIME-WAIT entries now, nobody's.
    toe_guest_tests::host::wait_for("the connections to be over", Duration::from_secs(10), || {
        let all = bench.station().card().sockets()?;
        Ok(all.iter().all(|s| s.info.tcp_state == 6 && s.pid == 0).then_some(()))
    })?;
    bench.finish(&[])
}
