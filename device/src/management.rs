//! The management API: HTTP over a Unix socket, with JSON.
//!
//! | request | answer |
//! |---|---|
//! | `GET /limits` | an array of pools, see [`Limit`] |
//! | `GET /stat` | an object: counter to value |
//! | `GET /version` | an object: `name`, `version`, `channel` (the version of the channel), `epoch` (of the firmware) |
//!
//! It only answers questions. Who may open the socket may ask; its file's permissions say who that is.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::card::Card;

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

/// Answers on `listener` for as long as it is polled. To be called inside a Tokio runtime.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: UnixListener, card: Arc<Card>, epoch: u32) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let version = Version {
        name: "toe-nic".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        channel: toe_abi::VERSION,
        epoch,
    };
    let (limits, stat) = (card.clone(), card);
    let app = Router::new()
        .route("/limits", get(async move || Json(limits.limits())))
        .route("/stat", get(async move || Json(stat.stat())))
        .route("/version", get(async move || Json(version.clone())));
    axum::serve(listener, app).await
}
