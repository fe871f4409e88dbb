//! Tokio's streams over the model of the card: on one thread, so that a task that is not woken is seen.

use ::tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use ::tokio::time::timeout;

use super::{PATIENCE, at, machine, pattern, until};
use crate::tokio::{TcpListener, TcpStream};

#[test]
fn streams_are_whole_in_both_directions_on_one_thread() {
    for lose in [0, 20] {
        let (memory, options) = machine(lose);
        let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let both = async {
            let listener = TcpListener::bind_with(options.clone(), at(0)).await.unwrap();
            let port = listener.get_ref().local_addr().unwrap().port();
            let client = async {
                let stream = TcpStream::connect_with(options.clone(), at(port)).await.unwrap();
                assert!(stream.get_ref().offload().is_card());
                exchange(stream, 1, 2).await;
            };
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                exchange(stream, 2, 1).await;
            };
            ::tokio::join!(client, server);
        };
        runtime.block_on(async { timeout(PATIENCE, both).await.expect("a task was not woken") });
        drop(runtime);
        until("the card let go of all", || memory.card().connections() == 0);
        assert!(memory.card().complaints.is_empty(), "{:?}", memory.card().complaints);
    }
}

/// Far more than any buffer holds, both ways at once, then the ends.
async fn exchange(stream: TcpStream, ours: usize, theirs: usize) {
    let (mut reader, mut writer) = split(stream);
    let writing = async {
        writer.write_all(&pattern(150_000, ours)).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let reading = async {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(150_000, theirs));
    };
    ::tokio::join!(writing, reading);
}
