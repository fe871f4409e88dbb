//! The management API: HTTP over a Unix socket, with JSON. `GET /metrics` alone may be had over TCP, too.
//!
//! | request | answer |
//! |---|---|
//! | `GET /limits` | an array of pools, see [`Limit`] |
//! | `GET /stat` | an object: counter to value |
//! | `GET /version` | an object: `name`, `version`, `channel` (the version of the channel), `epoch` (of the firmware) |
//! | `GET /metrics` | the same for Prometheus, see [`metrics`] |
//!
//! It only answers questions. The socket's file belongs to who started the card, and nobody else may open it (mode 0600);
//! over TCP everybody on this machine may ask, for numbers only.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::card::Card;
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
}

/// Answers for as long as it is polled. To be called inside a Tokio runtime.
///
/// # Errors
/// A listener fails.
pub async fn serve(doors: Doors, card: Arc<Card>, epoch: u32) -> std::io::Result<()> {
    let version = Version {
        name: "toe-nic".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        channel: toe_abi::VERSION,
        epoch,
    };
    let Doors { management, metrics } = doors;
    let for_metrics = metrics_router(card.clone(), version.clone());
    let for_all = for_metrics.clone().merge(router(card, version));
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
    tokio::select! {
        result = management => result,
        result = metrics => result,
    }
}

fn metrics_router(card: Arc<Card>, version: Version) -> Router {
    let text = async move || ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&card, &version));
    Router::new().route("/metrics", get(text))
}

fn router(card: Arc<Card>, version: Version) -> Router {
    let (limits, stat) = (card.clone(), card);
    Router::new()
        .route("/limits", get(async move || Json(limits.limits())))
        .route("/stat", get(async move || Json(stat.stat())))
        .route("/version", get(async move || Json(version.clone())))
}
