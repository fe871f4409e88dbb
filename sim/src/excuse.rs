//! What a fault may break, and nothing else: an expectation of each site, so that no rule has to be switched off for all.
//!
//! A card that is struck inside may send what no card sends, or refuse what it would have taken; its neighbour, who is
//! not struck, must keep every rule all the same, and everything must come to its end. So an excuse is for the card that is struck, in
//! the run in which it is struck; until the fault strikes, that run is the one without faults, which has been judged.

use toe_abi::Reason;
use toe_faults::{Action, Rules, Site};

/// What need not hold of a struck card.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Excuse {
    /// Connections may break: both ends are told, or find out.
    pub breaks: bool,
    /// What it sends need not keep the rules of a segment.
    pub sends_anything: bool,
    /// A byte may be wrong: it was turned over where no checksum covers it.
    pub wrong_bytes: bool,
    /// What it reads may be longer or shorter than what was sent: it takes what nobody sent, in a header, too.
    pub wrong_lengths: bool,
    /// What it reads may begin one byte late: it acknowledges one less than it has, and to a peer whose SYN-ACK was a cookie that
    /// is another cookie, by which the peer begins one earlier.
    pub begins_late: bool,
    /// What it counts need not add up.
    pub miscounts: bool,
    /// Its timers need not follow from its blocks: one was lost, or was not to be had, and the scrubber sets it right later.
    pub odd_timers: bool,
    /// Of these pools one may be missing in the end.
    pub leaks: Vec<String>,
    /// It may refuse for want of these.
    pub refuses: Vec<Reason>,
    /// It may give the guest up: its lease is over by a clock that jumped.
    pub loses_context: bool,
}

impl Excuse {
    /// What rules excuse of a card.
    pub fn of(rules: &Rules, card: &str) -> Self {
        let mut all = Self::default();
        for rule in rules.clone().of_card(card).as_slice() {
            let Self {
                breaks,
                sends_anything,
                wrong_bytes,
                wrong_lengths,
                begins_late,
                miscounts,
                odd_timers,
                leaks,
                refuses,
                loses_context,
            } = excused(rule.site, rule.action);
            all.breaks |= breaks;
            all.sends_anything |= sends_anything;
            all.wrong_bytes |= wrong_bytes;
            all.wrong_lengths |= wrong_lengths;
            all.begins_late |= begins_late;
            all.miscounts |= miscounts;
            all.odd_timers |= odd_timers;
            all.leaks.extend(leaks);
            all.refuses.extend(refuses);
            all.loses_context |= loses_context;
        }
        all
    }
}

/// The expectation of a site.
fn excused(site: Site, action: Action) -> Excuse {
    let nothing = Excuse::default();
    let mut parts = site.name().split('.');
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        ("wire", "rx") if site == Site::RxChecksum => match action {
            // Damage is taken for what the peer said.
            Action::Corrupt(_) => {
                Excuse { breaks: true, sends_anything: true, wrong_bytes: true, wrong_lengths: true, ..nothing }
            }
            // What is taken for damaged goes to the guest's kernel if it is not a connection's: a SYN is answered with a reset.
            _ => Excuse { breaks: true, ..nothing },
        },
        // The segment is one that every peer drops.
        ("wire", "tx") if site == Site::TxChecksum => Excuse { sends_anything: true, ..nothing },
        ("wire" | "channel", _) => nothing,
        ("timer", "wake") => nothing,
        ("payload", _) => Excuse { breaks: true, sends_anything: true, wrong_bytes: true, ..nothing },
        ("counters", _) => Excuse { miscounts: true, ..nothing },
        ("events", _) => nothing,
        ("pool", pool) => {
            let name = pool.replace('_', "-");
            let refusal = match pool {
                "contexts" => Some(Reason::Contexts),
                "context_addresses" => Some(Reason::Addresses),
                "listeners" => Some(Reason::Listeners),
                _ => None,
            };
            Excuse {
                breaks: true,
                // A SYN-ACK may stay unsaid: to a second SYN, a stranger's, the card answers with what nobody has seen begin.
                sends_anything: pool == "segments",
                odd_timers: matches!(pool, "timers" | "transmit_records"),
                leaks: Vec::from_iter((action == Action::Leak).then_some(name)),
                refuses: Vec::from_iter(refusal),
                ..nothing
            }
        }
        ("timer", _) => Excuse { breaks: true, odd_timers: true, ..nothing },
        ("processor", _) => Excuse { breaks: true, ..nothing },
        ("clock", _) => Excuse { breaks: true, loses_context: matches!(action, Action::Jump(_)), ..nothing },
        // Numbers that were used before: what an earlier life of the 4-tuple left under way is acceptable to the next.
        ("isn" | "key", _) => Excuse { breaks: true, sends_anything: true, ..nothing },
        ("bug", "ack_off_by_one") => Excuse { breaks: true, sends_anything: true, begins_late: true, ..nothing },
        // A block, a known bug, the next hop.
        _ => Excuse { breaks: true, sends_anything: true, ..nothing },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excuse_is_for_the_card_and_the_site() {
        let single = |site, action| Rules::single(site, 1, "a", action);
        let none = Excuse::default();
        for site in [Site::WireRx, Site::ChannelTx, Site::TimerWake] {
            assert_eq!(Excuse::of(&single(site, Action::Drop), "a"), none, "{}", site.name());
        }
        let leak = single(Site::AllocSendPages, Action::Leak);
        let leaked = Excuse { breaks: true, leaks: vec!["send-pages".into()], ..Excuse::default() };
        assert_eq!((Excuse::of(&leak, "a"), Excuse::of(&leak, "b")), (leaked, none.clone()));
        let flip = Excuse::of(&single(Site::PayloadRx, Action::FlipBit(0)), "a");
        assert!(flip.wrong_bytes && flip.leaks.is_empty());
        let block = Excuse::of(&single(Site::TcbSndNxt, Action::Corrupt(None)), "a");
        assert!(!block.wrong_bytes && !block.wrong_lengths && !block.begins_late);
        let bug = Rules::single(Site::BugAckOffByOne, 1, "a", Action::Error);
        assert!(Excuse::of(&bug, "a").begins_late && !Excuse::of(&bug, "b").begins_late);
    }
}
