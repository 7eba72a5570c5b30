//! `staunch calibrate`: measures how fast this machine hashes, to help choose cost, cores and limits.

use super::source::Source;
use super::{Failure, tell};
use crate::clock::Clock;
use crate::hashing::{Calibration, HashConfig, MeasuredSpeed, bcrypt_crate_speed};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;
use std::time::Duration;

/// Cost of the first table: the lowest that OWASP recommends.
const TABLE_COST: u32 = 10;
/// Costs of the second table.
const COSTS: std::ops::RangeInclusive<u32> = 8..=15;
/// Cores count as shared if they sustain less than this part of the best speed.
const SHARED_BELOW: f64 = 0.9;

/// Everything that is measured, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    threads: usize,
    lanes: usize,
    cost: u32,
    shared: bool,
    difference: String,
    /// Of one thread, at cost 10.
    bcrypt_crate: Rates,
    lane_counts: Vec<LaneCount>,
    costs: Vec<CostRow>,
}

/// Hashes per second.
#[derive(Clone, Copy, Serialize)]
struct Rates {
    best: f64,
    sustained: f64,
}

/// One thread with that many lanes, at cost 10.
#[derive(Serialize)]
struct LaneCount {
    lanes: usize,
    #[serde(flatten)]
    rates: Rates,
    batch_ms: f64,
}

/// All threads with the lanes in use, sustained.
#[derive(Serialize)]
struct CostRow {
    cost: u32,
    logins_per_second: f64,
    alone_ms: f64,
    full_ms: f64,
}

pub(super) fn command() -> Command {
    Command::new("calibrate")
        .about("Measure how fast this machine hashes, and what each bcrypt cost means")
        .arg(Arg::new("JSON").long("json").action(ArgAction::SetTrue).help("Print JSON"))
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let config = Source::new(matches)?.config()?.hashing();
    let clock = Clock::system();
    let theirs = bcrypt_crate_speed(config.threads, &clock);
    let calibration = Calibration::measure(config.threads, &clock);
    let report = Report::new(&config, &theirs, &calibration);
    let lines = if matches.get_flag("JSON") {
        vec![serde_json::to_string(&report).unwrap_or_default()]
    } else {
        report.lines()
    };
    tell(&lines);
    Ok(())
}

impl Report {
    fn new(config: &HashConfig, theirs: &MeasuredSpeed, calibration: &Calibration) -> Self {
        let set = config.lanes.and_then(|lanes| {
            calibration.speeds.iter().find(|speed| speed.lanes() == lanes).copied()
        });
        let chosen = set.unwrap_or(calibration.chosen);
        let alone = calibration.one_lane().sustained;
        #[expect(clippy::cast_precision_loss, reason = "a thread count")]
        let threads = config.threads as f64 * config.paced_share();
        let row = |cost| CostRow {
            cost,
            logins_per_second: chosen.sustained.hashes_per_second(cost) * threads,
            alone_ms: ms(alone.hash_time(cost)),
            full_ms: ms(chosen.sustained.hash_time(cost)),
        };
        let lane_count = |speed: &MeasuredSpeed| LaneCount {
            lanes: speed.lanes(),
            rates: Rates::of(speed),
            batch_ms: ms(speed.sustained.hash_time(TABLE_COST)),
        };
        Self {
            threads: config.threads,
            lanes: chosen.lanes(),
            cost: config.cost,
            shared: is_shared(&chosen),
            difference: difference(&chosen),
            bcrypt_crate: Rates::of(theirs),
            lane_counts: calibration.speeds.iter().map(lane_count).collect(),
            costs: COSTS.map(row).collect(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let Self { threads, lanes, bcrypt_crate: theirs, .. } = self;
        let mut lines = vec![
            format!("One of {threads} threads that hash at once, cost {TABLE_COST}, hashes/s.\n"),
            "lanes     best   against the crate   sustained   against the crate   ms a batch"
                .to_owned(),
            format!("crate {:>8.1} {:>31.1}", theirs.best, theirs.sustained),
        ];
        for LaneCount { lanes: count, rates, batch_ms } in &self.lane_counts {
            let mark = if count == lanes { "  <- in use" } else { "" };
            lines.push(format!(
                "{count:>5} {:>8.1} {:>18.2}x {:>11.1} {:>18.2}x {batch_ms:>12.1}{mark}",
                rates.best,
                rates.best / theirs.best,
                rates.sustained,
                rates.sustained / theirs.sustained,
            ));
        }
        lines.push(format!("\n{}", self.difference));
        lines.push(format!("\n{threads} threads of {lanes} lanes, sustained, by cost:\n"));
        lines.push(" cost   logins/s   ms a login alone   ms a login when full".to_owned());
        for CostRow { cost, logins_per_second, alone_ms, full_ms } in &self.costs {
            let mark = if *cost == self.cost { "  <- in use" } else { "" };
            lines.push(format!(
                "{cost:>5}   {logins_per_second:>8.1}   {alone_ms:>16.0}   {full_ms:>20.0}{mark}"
            ));
        }
        lines.push(
            "\nLogins wait longer when they arrive faster than they are hashed: STAUNCH_HASH_DEADLINE bounds that wait."
                .to_owned(),
        );
        lines
    }
}

impl Rates {
    fn of(speed: &MeasuredSpeed) -> Self {
        let rate = |speed: &crate::hashing::LaneSpeed| speed.hashes_per_second(TABLE_COST);
        Self { best: rate(&speed.best), sustained: rate(&speed.sustained) }
    }
}

fn is_shared(speed: &MeasuredSpeed) -> bool {
    speed.sustained_share() < SHARED_BELOW
}

/// One sentence about the difference between the two speeds.
fn difference(chosen: &MeasuredSpeed) -> String {
    let Rates { best, sustained } = Rates::of(chosen);
    let cores = if is_shared(chosen) { "shared" } else { "not shared" };
    format!("This machine's cores are {cores}: best {best:.1}/s, sustained {sustained:.1}/s.")
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashing::LaneSpeed;

    fn speed(lanes: usize, best_us: u64, sustained_us: u64) -> MeasuredSpeed {
        let speed = |micros| LaneSpeed { lanes, round_time: Duration::from_micros(micros) };
        MeasuredSpeed { best: speed(best_us), sustained: speed(sustained_us) }
    }

    fn report(lanes: Option<usize>) -> Report {
        let speeds = vec![speed(1, 59, 64), speed(4, 70, 125), speed(6, 93, 190)];
        let calibration = Calibration { chosen: speeds[1], speeds };
        let deadline = Duration::from_secs(30);
        let config = HashConfig { cost: 12, threads: 2, lanes, queue: 64, deadline, cpu: None };
        Report::new(&config, &speed(1, 58, 70), &calibration)
    }

    // Case C2 of the field list: both figures, and decisions by the sustained one.
    #[test]
    fn both_speeds_are_printed_and_their_difference_is_said() {
        let lines = report(None).lines();
        let in_use = "    4     55.8               3.31x        31.2               2.24x        128.0  <- in use";
        assert!(lines.contains(&in_use.to_owned()), "{lines:#?}");
        let said = "\nThis machine's cores are shared: best 55.8/s, sustained 31.2/s.";
        assert!(lines.contains(&said.to_owned()), "{lines:#?}");
        let by_cost = "   12       15.6                262                    512  <- in use";
        assert!(lines.contains(&by_cost.to_owned()), "{lines:#?}");
        assert_eq!(
            difference(&speed(6, 83, 84)),
            "This machine's cores are not shared: best 70.6/s, sustained 69.8/s."
        );
    }

    #[test]
    fn a_configured_lane_count_is_the_one_in_use() {
        let report = report(Some(6));
        assert_eq!((report.lanes, report.shared), (6, true));
        assert!((report.costs[2].logins_per_second - 61.7).abs() < 0.1);
    }

    #[test]
    fn the_json_has_both_speeds_of_each_lane_count() {
        let json = serde_json::to_value(report(None)).unwrap();
        assert_eq!(json["lane_counts"][1]["lanes"], 4);
        assert_eq!(json["lane_counts"][1]["sustained"], 31.25);
        assert_eq!(json["shared"], true);
        assert!(json["bcrypt_crate"]["best"].as_f64() > json["bcrypt_crate"]["sustained"].as_f64());
    }
}
