//! Questions to a running card: HTTP over its management socket.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;

/// How long a card may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for `path` and waits for the whole answer.
pub async fn ask(socket: &Path, path: &str) -> Result<String, String> {
    request(socket, Request::get(path), Bytes::new()).await
}

/// Says something, and waits for the whole answer.
pub async fn request(socket: &Path, request: hyper::http::request::Builder, body: Bytes) -> Result<String, String> {
    let whole = async {
        let mut answer = Answer::to(socket, request, body).await?;
        let mut body = Vec::new();
        while let Some(part) = answer.next().await? {
            body.extend_from_slice(&part);
        }
        String::from_utf8(body).map_err(|error| error.to_string())
    };
    tokio::time::timeout(TIMEOUT, whole).await.map_err(|_| "no answer; is that a toe-nic?".to_owned())?
}

/// An answer that comes piece by piece.
pub struct Answer {
    body: Incoming,
}

impl Answer {
    /// Asks, and waits for the beginning of the answer. To be called in a runtime, which drives the connection.
    pub async fn to(socket: &Path, request: hyper::http::request::Builder, body: Bytes) -> Result<Self, String> {
        let stream = tokio::net::UnixStream::connect(socket)
            .await
            .map_err(|error| format!("{error}; is toe-nic running with `--management-socket {}`?", socket.display()))?;
        let text = |error: hyper::Error| error.to_string();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        // What breaks it shows in the answer.
        tokio::spawn(connection);
        let request = request.header("host", "toe-nic").header("content-type", "application/json");
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let path = request.uri().path().to_owned();
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let body = response.into_body();
        if !status.is_success() {
            let said = body.collect().await.map_err(text)?.to_bytes();
            let said = String::from_utf8_lossy(&said).into_owned();
            return Err(if said.is_empty() { format!("{path} was answered with {status}") } else { said });
        }
        Ok(Self { body })
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(format!("the card hung up: {error}")),
                // A frame of trailers has no data.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}
