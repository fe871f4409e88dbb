//! The driver's side against rust-vmm's device side over the same memory.

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryBackend;

use super::*;

const SIZE: u16 = 8;
const BUFFER_BYTES: u32 = 100;

struct Bench {
    memory: Arc<GuestMemoryMmap>,
    ring: Ring,
    device: Queue,
}

fn bench(event_idx: bool, for_device: bool) -> Bench {
    let layout = Layout::new(0x1000, SIZE, BUFFER_BYTES);
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0x1000), layout.end as usize)]).unwrap());
    let ring = Ring::new(memory.clone(), layout, event_idx, for_device).unwrap();
    let mut device = Queue::new(SIZE).unwrap();
    device.set_size(SIZE);
    device.try_set_desc_table_address(GuestAddress(layout.descriptors)).unwrap();
    device.try_set_avail_ring_address(GuestAddress(layout.available)).unwrap();
    device.try_set_used_ring_address(GuestAddress(layout.used)).unwrap();
    device.set_event_idx(event_idx);
    device.set_ready(true);
    assert!(device.is_valid(&*memory));
    Bench { memory, ring, device }
}

#[test]
fn what_is_given_is_seen_and_what_is_used_comes_back() {
    for event_idx in [false, true] {
        let mut b = bench(event_idx, true);
        // Several times around the ring, and around the 16-bit indices.
        for round in 0..20_000u32 {
            let heads: Vec<_> = (0..1 + round % u32::from(SIZE))
                .map(|_| {
                    let head = b.ring.free().unwrap();
                    b.ring.give(head).unwrap();
                    head
                })
                .collect();
            let chains: Vec<_> = b.device.iter(&*b.memory).unwrap().collect();
            assert_eq!(chains.len(), heads.len());
            for (chain, head) in chains.into_iter().zip(&heads) {
                assert_eq!(chain.head_index(), *head);
                let descriptors: Vec<_> = chain.clone().collect();
                assert_eq!(descriptors.len(), 1);
                assert_eq!(descriptors[0].addr(), b.ring.buffer(*head));
                assert_eq!((descriptors[0].len(), descriptors[0].is_write_only()), (BUFFER_BYTES, true));
                b.device.add_used(&*b.memory, *head, u32::from(*head) + 1).unwrap();
            }
            assert_eq!(usize::from(b.ring.waiting().unwrap()), heads.len());
            for head in heads {
                assert_eq!(b.ring.take().unwrap(), Some(Used { head, bytes: u32::from(head) + 1 }));
            }
            assert_eq!(b.ring.take().unwrap(), None);
        }
    }
}

#[test]
fn a_full_ring_has_no_free_descriptor() {
    let mut b = bench(true, false);
    for _ in 0..SIZE {
        let head = b.ring.free().unwrap();
        b.ring.set_length(head, 17).unwrap();
        b.ring.give(head).unwrap();
    }
    assert_eq!(b.ring.free(), None);
    let chain = b.device.iter(&*b.memory).unwrap().next().unwrap();
    let descriptor = chain.clone().next().unwrap();
    assert_eq!((descriptor.len(), descriptor.is_write_only()), (17, false));
    b.device.add_used(&*b.memory, chain.head_index(), 0).unwrap();
    assert_eq!(b.ring.free(), None, "not before it was taken");
    let used = b.ring.take().unwrap().unwrap();
    assert_eq!(b.ring.free(), Some(used.head));
}

#[test]
fn the_device_is_told_when_it_asked_and_tells_when_asked() {
    let mut b = bench(true, true);
    let give = |b: &mut Bench| {
        let head = b.ring.free().unwrap();
        b.ring.give(head).unwrap();
    };
    give(&mut b);
    assert!(b.ring.must_notify().unwrap(), "the event index starts at zero");
    give(&mut b);
    assert!(!b.ring.must_notify().unwrap(), "nobody asked again");
    // The device looks, finds both and asks to be told of the next.
    let heads: Vec<_> = b.device.iter(&*b.memory).unwrap().map(|c| c.head_index()).collect();
    assert!(!b.device.enable_notification(&*b.memory).unwrap());
    give(&mut b);
    assert!(b.ring.must_notify().unwrap());

    assert!(b.ring.arm().unwrap(), "nothing is used yet");
    b.device.add_used(&*b.memory, heads[0], 1).unwrap();
    assert!(b.device.needs_notification(&*b.memory).unwrap());
    b.device.add_used(&*b.memory, heads[1], 1).unwrap();
    assert!(!b.device.needs_notification(&*b.memory).unwrap(), "one interrupt is enough");
    assert!(!b.ring.arm().unwrap(), "there is something to take, waiting would be in vain");
}

#[test]
fn without_event_index_the_flag_counts() {
    let mut b = bench(false, true);
    b.ring.give(0).unwrap();
    assert!(b.ring.must_notify().unwrap());
    assert!(!b.ring.must_notify().unwrap(), "nothing new");
    b.device.disable_notification(&*b.memory).unwrap();
    b.ring.give(1).unwrap();
    assert!(!b.ring.must_notify().unwrap());
}

#[test]
fn a_device_that_breaks_the_rules_is_found_out() {
    let mut b = bench(true, true);
    b.ring.give(3).unwrap();
    b.device.add_used(&*b.memory, 5, 0).unwrap();
    assert!(matches!(b.ring.take(), Err(RingError::NotHeld(5))));

    let mut b = bench(true, true);
    b.ring.give(3).unwrap();
    b.device.add_used(&*b.memory, 3, BUFFER_BYTES + 1).unwrap();
    assert!(matches!(b.ring.take(), Err(RingError::TooLong { written: 101, room: 100 })));

    let b = bench(true, true);
    let used_index = GuestAddress(b.ring.layout.used + 2);
    b.memory.write_slice(&(SIZE + 1).to_le_bytes(), used_index).unwrap();
    assert!(matches!(b.ring.waiting(), Err(RingError::RanAhead)));
    assert_eq!(b.memory.num_regions(), 1);
}
