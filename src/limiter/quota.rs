//! What a limit setting means: `10/min` is ten at once, and ten more a minute, evenly; `10/min,100/h`
//! is that, and of those a hundred at once and a hundred more an hour.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// A limit as set: `off`, or quotas that must all have room, such as `10/min,100/h`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limit {
    /// One a window at most; empty is off.
    quotas: Vec<Quota>,
}

impl Limit {
    /// Nothing is counted.
    pub const OFF: Self = Self { quotas: Vec::new() };

    /// In the order of the setting. Empty: off.
    #[must_use]
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }
}

impl From<Quota> for Limit {
    fn from(quota: Quota) -> Self {
        Self { quotas: vec![quota] }
    }
}

impl FromStr for Limit {
    type Err = QuotaError;

    fn from_str(text: &str) -> Result<Self, QuotaError> {
        if text.trim() == "off" {
            return Ok(Self::OFF);
        }
        let error = || QuotaError { given: text.to_owned() };
        let mut quotas = Vec::<Quota>::new();
        for part in text.split(',') {
            let quota = parse(part.trim()).ok_or_else(error)?;
            // Of two counts for one window the larger would be moot: a slip.
            if quotas.iter().any(|other| other.window == quota.window) {
                return Err(error());
            }
            quotas.push(quota);
        }
        Ok(Self { quotas })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.quotas.split_first() else {
            return f.write_str("off");
        };
        first.fmt(f)?;
        rest.iter().try_for_each(|quota| write!(f, ",{quota}"))
    }
}

/// How many requests in which time. The count is also the burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    burst: NonZeroU32,
    window: Window,
}

impl Quota {
    /// The largest count. At 1,000,000/s a token takes 1,000 ns; rounding its time up to a whole
    /// nanosecond then slows the refill by 0.1 % at most.
    pub const BURST_MAX: u32 = 1_000_000;

    /// `burst` requests per `window`; `None` if `burst` is 0 or above [`Quota::BURST_MAX`].
    #[must_use]
    pub const fn new(burst: u32, window: Window) -> Option<Self> {
        if burst > Self::BURST_MAX {
            return None;
        }
        match NonZeroU32::new(burst) {
            Some(burst) => Some(Self { burst, window }),
            None => None,
        }
    }

    /// Tokens in a full bucket, 1 to [`Quota::BURST_MAX`]. `q` of `RateLimit-Policy`.
    #[must_use]
    pub const fn burst(self) -> NonZeroU32 {
        self.burst
    }

    /// Time in which an empty bucket fills. `w` of `RateLimit-Policy`.
    #[must_use]
    pub const fn period(self) -> Duration {
        self.window.duration()
    }

    /// The unit that it was set in.
    #[must_use]
    pub const fn window(self) -> Window {
        self.window
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.burst, self.window.as_str())
    }
}

/// The unit of time of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// `s`
    Second,
    /// `min`
    Minute,
    /// `h`
    Hour,
}

impl Window {
    pub(super) const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    /// As written in a setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
        }
    }

    /// Its length.
    #[must_use]
    pub const fn duration(self) -> Duration {
        match self {
            Self::Second => Duration::from_secs(1),
            Self::Minute => Duration::from_secs(60),
            Self::Hour => Duration::from_secs(3_600),
        }
    }
}

/// A limit setting that cannot be read. Its message says what can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a limit: write a count from 1 to {}, a slash and s, min or h, \
     such as 10/min, several with commas between (10/min,100/h), each unit once, or off",
    Quota::BURST_MAX
)]
pub struct QuotaError {
    given: String,
}

fn parse(text: &str) -> Option<Quota> {
    let (count, unit) = text.split_once('/')?;
    // u32's own parser also takes a sign, which a count has no use for.
    if !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let window = Window::ALL.into_iter().find(|window| window.as_str() == unit)?;
    Quota::new(count.parse().ok()?, window)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any quota that can be set.
    pub(in super::super) fn quotas() -> impl Strategy<Value = Quota> {
        let burst = prop_oneof![1..=20_u32, 1..=Quota::BURST_MAX];
        let window = prop::sample::select(Window::ALL.to_vec());
        (burst, window).prop_map(|(burst, window)| Quota::new(burst, window).unwrap())
    }

    /// Any limit that can be set.
    fn limits() -> impl Strategy<Value = Limit> {
        prop::collection::vec(quotas(), 0..4).prop_map(|mut quotas| {
            let mut seen = Vec::new();
            quotas.retain(|quota| {
                let first = !seen.contains(&quota.window);
                seen.push(quota.window);
                first
            });
            Limit { quotas }
        })
    }

    #[test]
    fn reads_the_forms_of_the_contract() {
        let read = |text: &str| text.parse::<Limit>().map(|limit| limit.quotas);
        let quota = |burst, window| Quota::new(burst, window).unwrap();
        for (text, quotas) in [
            ("10/min", vec![quota(10, Window::Minute)]),
            ("5/s", vec![quota(5, Window::Second)]),
            (" 200/h ", vec![quota(200, Window::Hour)]),
            ("1000000/s", vec![quota(1_000_000, Window::Second)]),
            ("10/min,100/h", vec![quota(10, Window::Minute), quota(100, Window::Hour)]),
            (
                "9/h, 2/s ,5/min",
                vec![quota(9, Window::Hour), quota(2, Window::Second), quota(5, Window::Minute)],
            ),
            ("off", vec![]),
        ] {
            assert_eq!(read(text), Ok(quotas), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_what_is_allowed() {
        for text in [
            "",
            "/",
            "10",
            "10/",
            "/min",
            "0/min",
            "-1/s",
            "+5/s",
            "1.5/s",
            "1000001/s",
            "10/d",
            "10/minute",
            "10/MIN",
            "10 / min",
            "4294967296/s",
            "99999999999999999999/s",
            "OFF",
            "none",
            "١/s",
            ",",
            "10/min,",
            ",10/min",
            "10/min 100/h",
            "10/min;100/h",
            "10/min,off",
            "10/min,100/min",
        ] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
        assert_eq!(
            "ten/min".parse::<Limit>().unwrap_err().to_string(),
            "\"ten/min\" is not a limit: write a count from 1 to 1000000, a slash and s, min or h, \
             such as 10/min, several with commas between (10/min,100/h), each unit once, or off"
        );
    }

    proptest! {
        #[test]
        fn display_reads_back(limit in limits()) {
            prop_assert_eq!(limit.to_string().parse::<Limit>(), Ok(limit));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
            if let Ok(limit) = text.parse::<Limit>() {
                prop_assert_eq!(limit.to_string().parse::<Limit>(), Ok(limit));
            }
        }
    }
}
