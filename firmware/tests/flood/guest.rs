//! A guest that accepts whatever comes to its listener, reads it, closes when the peer has, and forgets.

use std::collections::HashMap;

use toe_abi::{
    CARD_MAC, Endpoint, FRAME_BYTES_MAX, Hello, Listen, Mac, Message, Parsed, ReceiveCredit, Release, Shutdown, Taken,
    Writer, state,
};
use toe_firmware::{Firmware, Instant, Verdict};

const KEY: u128 = 0xf00d;

/// The guest's station.
pub const GUEST_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A connection, as far as this guest cares.
#[derive(Default)]
struct Connection {
    held: u64,
    is_shut: bool,
}

/// The guest.
#[derive(Default)]
pub struct Guest {
    context: u64,
    connections: HashMap<u64, Connection>,
    taken: u64,
    buffer: Vec<u8>,
    /// Remote ends of what was accepted since this was last emptied.
    pub accepted: Vec<Endpoint>,
    /// Bytes received.
    pub bytes: u64,
}

impl Guest {
    /// Opens a context and listens.
    pub fn new(firmware: &mut Firmware, now: Instant, local: Endpoint, backlog: u32) -> Self {
        let mut guest = Self { buffer: vec![0; FRAME_BYTES_MAX], ..Self::default() };
        guest.tell(
            firmware,
            now,
            &Message::Hello(Hello {
                version_min: 1,
                version_max: 1,
                lease_ms: 600_000,
                frame_bytes_max: FRAME_BYTES_MAX as u32,
                reserved: 0,
                receive_bytes_max: 1 << 30,
            }),
        );
        guest.serve(firmware, now);
        let listen = Listen { cookie: 1, local, backlog, flags: 0, receive_limit: 1 << 40, mtu: 1500, policy: 0 };
        guest.tell(firmware, now, &Message::Listen(listen));
        guest.serve(firmware, now);
        guest
    }

    fn tell(&self, firmware: &mut Firmware, now: Instant, message: &Message<'_>) {
        let mut frame = [0; 512];
        let epoch = if self.context == 0 { 0 } else { 1 };
        let mut w = Writer::new(&mut frame, GUEST_MAC, CARD_MAC, self.context, epoch, KEY).unwrap();
        assert!(w.push(message));
        let length = w.finish();
        assert_eq!(firmware.handle_guest(now, &frame[..length]), Verdict::Taken);
    }

    /// Does all that the card's news ask for.
    pub fn serve(&mut self, firmware: &mut Firmware, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(length) = firmware.poll_guest(now, &mut buffer) {
            let frame = buffer[..length].to_vec();
            for message in Parsed::new(&frame).unwrap().messages {
                self.hear(firmware, now, &message.unwrap());
            }
        }
        self.buffer = buffer;
    }

    fn hear(&mut self, firmware: &mut Firmware, now: Instant, message: &Message<'_>) {
        match *message {
            Message::Caps(m) => self.context = m.context,
            Message::Accepted(m) => {
                if self.connections.contains_key(&m.connection) {
                    return;
                }
                self.connections.insert(m.connection, Connection::default());
                self.accepted.push(m.remote);
                self.taken += 1;
                let taken = self.taken;
                self.tell(firmware, now, &Message::Taken(Taken { listener: m.listener, taken }));
                self.credit(firmware, now, m.connection, state::ACCEPTED);
            }
            Message::Received(m, data) => {
                let Some(c) = self.connections.get_mut(&m.connection) else { return };
                let end = m.offset + data.len() as u64;
                self.bytes += end.saturating_sub(c.held);
                c.held = c.held.max(end);
                self.credit(firmware, now, m.connection, 0);
            }
            Message::State(m) => {
                if !self.connections.contains_key(&m.connection) {
                    return;
                }
                self.credit(firmware, now, m.connection, m.bits);
                let c = self.connections.get_mut(&m.connection).expect("looked up");
                if m.bits & (state::ABORTED | state::ALL_ACKNOWLEDGED) != 0 {
                    self.connections.remove(&m.connection);
                    self.tell(firmware, now, &Message::Release(Release { connection: m.connection }));
                } else if m.bits & state::PEER_CLOSED != 0 && !std::mem::replace(&mut c.is_shut, true) {
                    self.tell(firmware, now, &Message::Shutdown(Shutdown { connection: m.connection, offset: 0 }));
                }
            }
            _ => {}
        }
    }

    fn credit(&self, firmware: &mut Firmware, now: Instant, connection: u64, seen: u32) {
        let held = self.connections.get(&connection).map_or(0, |c| c.held);
        self.tell(firmware, now, &Message::ReceiveCredit(ReceiveCredit { connection, held, limit: 1 << 40, seen }));
    }
}
