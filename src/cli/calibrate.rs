//! `staunch calibrate`: measures how fast this machine hashes, to help choose cost, cores and limits.

use super::source::Source;
use super::{Failure, tell};
use crate::clock::Clock;
use crate::hashing::{Calibration, bcrypt_crate_hash_time};
use clap::ArgMatches;
use std::time::Duration;

/// Cost of the first table: the lowest that OWASP recommends.
const TABLE_COST: u32 = 10;
/// Costs of the second table.
const COSTS: std::ops::RangeInclusive<u32> = 8..=15;

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let config = Source::new(matches)?.config()?;
    let clock = Clock::system();
    let theirs = bcrypt_crate_hash_time(TABLE_COST, &clock);
    let calibration = Calibration::measure(&clock);
    let chosen = match config.hashing().lanes {
        Some(lanes) => Calibration::measure_fixed(lanes, &clock).chosen,
        None => calibration.chosen,
    };

    let mut lines = vec![
        format!(
            "One thread, cost {TABLE_COST}; the bcrypt crate takes {:.1} ms a hash, {:.1} hashes/s.\n",
            ms(theirs),
            1.0 / theirs.as_secs_f64()
        ),
        "lanes   ms a batch   hashes/s   against the crate".to_owned(),
    ];
    for speed in &calibration.speeds {
        let rate = speed.hashes_per_second(TABLE_COST);
        let mark = if speed.lanes == chosen.lanes { "  <- in use" } else { "" };
        lines.push(format!(
            "{:>5}   {:>10.1}   {rate:>8.1}   {:>16.2}x{mark}",
            speed.lanes,
            ms(speed.hash_time(TABLE_COST)),
            rate * theirs.as_secs_f64(),
        ));
    }

    let threads = config.hashing().threads;
    #[expect(clippy::cast_precision_loss, reason = "a thread count")]
    let factor = threads as f64;
    lines.push(format!("\n{threads} threads of {} lanes, by cost:\n", chosen.lanes));
    lines.push(" cost   logins/s   ms a login alone   ms a login when full".to_owned());
    for cost in COSTS {
        let mark = if cost == config.hashing().cost { "  <- in use" } else { "" };
        lines.push(format!(
            "{cost:>5}   {:>8.1}   {:>16.0}   {:>20.0}{mark}",
            chosen.hashes_per_second(cost) * factor,
            ms(calibration.one_lane().hash_time(cost)),
            ms(chosen.hash_time(cost)),
        ));
    }
    lines.push(
        "\nLogins wait longer when they arrive faster than they are hashed: STAUNCH_HASH_DEADLINE bounds that wait."
            .to_owned(),
    );
    tell(&lines);
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
