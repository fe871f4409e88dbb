//! After boot the firmware allocates nothing: a counting allocator watches every call to it while 100,000
//! connections are opened, used and closed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use toe_firmware::{Limits, Profile, Tcp};
use toe_impair::{Random, Share, Spec};

use crate::app::{App, Close, Plan};
use crate::card::{CardEnd, Channel, is_inside_firmware};
use crate::end::Pair;
use crate::parts::Family;
use crate::tests::scenario::{DEADLINE_US, plain_profile, plain_settings};
use crate::world::{Node, Opening, World, check_flow};

const CONNECTIONS: u64 = 100_000;
const AT_ONCE: u64 = 50;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator; counts what a firmware asks of it.
struct Counting;

impl Counting {
    fn count() {
        if is_inside_firmware() {
            // A thread that ends allocates outside of any firmware.
            let _ = COUNT.try_with(|c| c.set(c.get() + 1));
        }
    }
}

// SAFETY: every call goes to the system's allocator with the arguments as they came; counting touches thread-local
// memory only, which is constant-initialised and needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise is the same; `old` came from the same allocator.
        unsafe { System.realloc(old, layout, new_bytes) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same; `old` came from the same allocator.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn none_over_100_000_connections() {
    // TIME-WAIT of two milliseconds, so that it does not decide how fast connections can come.
    let profile = Profile {
        tcp: Tcp { msl_ms: 1, delayed_ack_ms: 1, ..Tcp::default() },
        limits: Limits { time_wait: 256, ..plain_profile().limits },
        ..plain_profile()
    };
    let channel = Channel { to_guest: Spec::default(), to_card: Spec::default(), guest_buffers: 64 };
    let card = |end: usize| {
        let settings = plain_settings(Family::V4, end);
        Node::Card(Box::new(CardEnd::new(["a", "b"][end], &profile, settings, &channel, end as u64)))
    };
    // Now and then a frame is lost or late, so that retransmission and reassembly take part.
    let line = Spec { delay_us: 100, loss: Share::from_ppm(2_000), reorder: Share::from_ppm(2_000), ..Spec::default() };
    let mut world = World::new(card(0), card(1), [line; 2], [1, 2]);
    let mut random = Random::new(1);
    let mut opened = 0;
    COUNT.with(|c| c.set(0));
    while opened < CONNECTIONS {
        let flows = AT_ONCE.min(CONNECTIONS - opened);
        for flow in 0..flows {
            let port = 10_000 + ((opened + flow) % 40_000) as u16;
            let address = |end| Family::V4.address(end);
            let pair = Pair { local: SocketAddr::new(address(0), port), remote: SocketAddr::new(address(1), 7_000) };
            let sizes = [random.below(3_000), random.below(3_000)];
            let apps = [0, 1].map(|i| {
                let plan = Plan {
                    out_bytes: sizes[i],
                    close: Close::WhenWritten,
                    write_bytes: 10_000,
                    read_bytes: 10_000,
                    read_pause_us: 0,
                    idle_us: 0,
                    lingers: false,
                    patience_us: None,
                };
                App::new(flow as usize, plan)
            });
            let at_us = world.now_us() + 1_000;
            world.add(Opening { accept_us: 0, at_us, active: 0, is_simultaneous: false, pair, any: None }, apps);
        }
        assert!(world.run(world.now_us() + DEADLINE_US), "connection {opened} or one after it does not end");
        for flow in 0..flows as usize {
            check_flow(&world, flow, false);
        }
        opened += flows;
        world.forget_flows();
    }
    for end in [0, 1] {
        let opened = world.card(end).card().high_water("connections");
        assert!(opened > 1, "connections were on the card");
    }
    assert_eq!(COUNT.with(Cell::get), 0, "allocations in calls to the firmware after boot");
}

/// The counter counts: an allocation inside a marked call is seen.
#[test]
fn an_allocation_inside_a_call_is_counted() {
    COUNT.with(|c| c.set(0));
    let inside = crate::card::marked_as_inside(|| vec![0u8; 100]);
    let outside = vec![0u8; 100];
    assert_eq!(inside, outside);
    assert_eq!(COUNT.with(Cell::get), 1);
}
