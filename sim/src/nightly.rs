//! The nightly set: seeds of every scenario, every single fault, and several faults at once; and a site that was never struck
//! in all of it is dead, which fails the set as a violation does.

use toe_faults::Site;
use toe_firmware::fault::SITES;

use crate::run::{Order, counted_range};
use crate::scenes::Ends;
use crate::singles::{is_here, single_faults};

/// The sites that the simulator has and that were never struck.
fn dead(strikes: &[u64; SITES]) -> Vec<&'static str> {
    let here = Site::ALL.into_iter().zip(strikes).filter(|(site, _)| is_here(*site));
    here.filter(|(_, strikes)| **strikes == 0).map(|(site, _)| site.name()).collect()
}

/// Runs the set with so many seeds of each kind; whether everything held and no site is dead.
pub fn nightly(from: u64, seeds: u64, jobs: u64) -> bool {
    let plain = Order { scenario: None, ends: Ends::Drawn, faults: None, drawn_faults: 0, faults_last: false };
    println!("seeds of every scenario");
    let (_, plain_holds) = counted_range(from, seeds, &plain, jobs);
    println!("single faults");
    let (mut sum, singles_hold) = single_faults(from, &plain, jobs);
    println!("two or three faults");
    let (counts, pairs_hold) = counted_range(from, seeds, &Order { ends: Ends::Cards, drawn_faults: 3, ..plain }, jobs);
    sum.add(counts);
    let dead = dead(&sum.strikes);
    let here = Site::ALL.into_iter().filter(|&site| is_here(site)).count();
    println!("{} of {here} sites were struck, {} times in all", here - dead.len(), sum.strikes.iter().sum::<u64>());
    if !dead.is_empty() {
        println!("dead sites: {}", dead.join(", "));
    }
    plain_holds && singles_hold && pairs_hold && dead.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_that_is_never_struck_is_dead_unless_it_is_the_devices() {
        let mut strikes = [1; SITES];
        assert!(dead(&strikes).is_empty());
        strikes[Site::TimerWake.index()] = 0;
        strikes[Site::KickTx.index()] = 0;
        assert_eq!(dead(&strikes), ["timer.wake"]);
    }
}
