//! The management API: HTTP over a Unix socket, with JSON. `GET /metrics` alone may be had over TCP, too.
//!
//! | request | answer |
//! |---|---|
//! | `GET /limits` | an array of pools, see [`Limit`] |
//! | `GET /stat` | an object: counter to value |
//! | `GET /version` | an object: `name`, `version`, `channel` (the version of the channel), `epoch` (of the firmware) |
//! | `GET /events` | what happens from now on, a [`Notice`] as JSON in each line |
//! | `POST /capture` with a [`Request`] | what passes from now on, as pcapng, until the asker hangs up or has its count |
//! | `GET /faults` | what is armed and what it has done, see [`Status`] |
//! | `GET /faults/sites` | an array of all sites, see [`SiteInfo`](crate::fault::status::SiteInfo) |
//! | `POST /faults?seed=N` with a rule file | arms its rules instead of those that were; the answer is that of `GET /faults` |
//! | `DELETE /faults` | disarms all; the answer is what `GET /faults` would have been |
//! | `GET /metrics` | pools and counters for Prometheus, see [`metrics`] |
//!
//! Of these `/faults` alone changes anything. What makes no sense is answered with a status of 400 or more and a line of text. The socket's file belongs to who started the card, and nobody else may open it (mode 0600);
//! over TCP everybody on this machine may ask, for numbers only.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::capture::pcapng::Encoder;
use crate::capture::{CaptureError, Request, Watch};
use crate::card::Card;
use crate::events::{FOLLOWERS_MAX, Notice};
use crate::fault::status::{self, Status};
use crate::metrics;

/// One pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limit {
    /// Its name.
    pub name: String,
    /// How many there are.
    pub capacity: u64,
    /// How many are in use.
    pub in_use: u64,
    /// The most that were ever in use at once.
    pub high_water: u64,
    /// What happens when it is full: `deny`, `fallback`, or `wait`.
    pub policy: String,
    /// How often it refused, by reason.
    pub refusals: BTreeMap<String, u64>,
}

/// What answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// `toe-nic`.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// The version of the channel between guest and card.
    pub channel: u16,
    /// The firmware's epoch: another value means another boot.
    pub epoch: u32,
}

/// Where the card is asked.
#[derive(Default, Debug)]
pub struct Doors {
    /// For the operator: everything.
    pub management: Option<UnixListener>,
    /// For Prometheus: `GET /metrics` and nothing else.
    pub metrics: Option<TcpListener>,
    /// What happens, for the log.
    pub log: Option<mpsc::Receiver<Notice>>,
}

/// Answers for as long as it is polled. To be called inside a Tokio runtime.
///
/// # Errors
/// A listener fails.
pub async fn serve(doors: Doors, card: Arc<Card>) -> std::io::Result<()> {
    let Doors { management, metrics, mut log } = doors;
    let for_metrics = metrics_router(card.clone());
    let for_all = for_metrics.clone().merge(router(card));
    let management = async {
        match management {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                axum::serve(tokio::net::UnixListener::from_std(listener)?, for_all).await
            }
            None => std::future::pending().await,
        }
    };
    let metrics = async {
        match metrics {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                axum::serve(tokio::net::TcpListener::from_std(listener)?, for_metrics).await
            }
            None => std::future::pending().await,
        }
    };
    let logged = async {
        while let Some(notice) = async { log.as_mut()?.recv().await }.await {
            log::log!(notice.log_level(), "{notice}");
        }
        std::future::pending().await
    };
    tokio::select! {
        result = logged => result,
        result = management => result,
        result = metrics => result,
    }
}

fn version(card: &Card) -> Version {
    Version {
        name: "toe-nic".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        channel: toe_abi::VERSION,
        epoch: card.epoch(),
    }
}

fn metrics_router(card: Arc<Card>) -> Router {
    let text = async move || ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&card, &version(&card)));
    Router::new().route("/metrics", get(text))
}

fn router(card: Arc<Card>) -> Router {
    let (limits, stat, events, capture, this) = (card.clone(), card.clone(), card.clone(), card.clone(), card.clone());
    let (armed, arm_at, disarm) = (card.clone(), card.clone(), card);
    let faults = get(async move || Json(armed.faults()))
        .post(async move |RawQuery(query): RawQuery, text: String| arm(&arm_at, query.as_deref(), &text))
        .delete(async move || Json(disarm.disarm()));
    Router::new()
        .route("/faults", faults)
        .route("/faults/sites", get(async || Json(status::sites())))
        .route("/limits", get(async move || Json(limits.limits())))
        .route("/stat", get(async move || Json(stat.stat())))
        .route("/events", get(async move || follow(&events)))
        .route("/capture", post(async move |Json(request): Json<Request>| pcapng(&capture, request)))
        .route("/version", get(async move || Json(version(&this))))
}

/// The seed of a request that names none.
const SEED: u64 = 1;

fn arm(card: &Card, query: Option<&str>, text: &str) -> Response {
    let refused = |text: String| (StatusCode::BAD_REQUEST, text).into_response();
    let seed = match query.map(|query| query.strip_prefix("seed=").and_then(|seed| seed.parse().ok())) {
        None => SEED,
        Some(Some(seed)) => seed,
        Some(None) => return refused("the one parameter is `seed`, a number: /faults?seed=7".to_owned()),
    };
    match toe_faults::read(text) {
        Ok(rules) => {
            log::warn!("faults are armed: {} rules, seed {seed}", rules.as_slice().len());
            card.arm(rules, seed);
            let status: Status = card.faults();
            Json(status).into_response()
        }
        Err(error) => refused(error.to_string()),
    }
}

fn follow(card: &Card) -> Response {
    match card.follow() {
        Some(notices) => ([(CONTENT_TYPE, "application/x-ndjson")], Body::new(Lines(notices))).into_response(),
        None => {
            let text = format!("{FOLLOWERS_MAX} follow the events already: end one");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// Events as the body of an answer: a line each, for ever.
struct Lines(mpsc::Receiver<Notice>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let notice = self.0.poll_recv(context);
        notice.map(|notice| notice.map(|notice| Ok(Frame::data(notice.json_line().into()))))
    }
}

fn pcapng(card: &Card, request: Request) -> Response {
    let snaplen = request.snaplen;
    let watch = match card.capture(request) {
        Ok(watch) => watch,
        Err(error @ CaptureError::Full) => return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match Encoder::new(snaplen) {
        Ok(encoder) => {
            let body = Body::new(Capture { watch, encoder, has_ended: false });
            ([(CONTENT_TYPE, "application/x-pcapng")], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A capture as the body of an answer: each of its frames is a number of whole blocks.
struct Capture {
    watch: Watch,
    encoder: Encoder,
    has_ended: bool,
}

/// A frame of the body is sent once it is that long, or nothing more waits.
const CAPTURE_CHUNK_BYTES: usize = 64 << 10;

impl hyper::body::Body for Capture {
    type Data = Bytes;
    type Error = pcap_file::PcapError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        while !this.has_ended && this.encoder.bytes() < CAPTURE_CHUNK_BYTES {
            match this.watch.poll_next(context) {
                Poll::Ready(Some(seen)) => this.encoder.add(&seen)?,
                Poll::Ready(None) => this.has_ended = true,
                Poll::Pending => break,
            }
        }
        let blocks = this.encoder.take();
        match (blocks.is_empty(), this.has_ended) {
            (false, _) => Poll::Ready(Some(Ok(Frame::data(blocks.into())))),
            (true, true) => Poll::Ready(None),
            (true, false) => Poll::Pending,
        }
    }
}
