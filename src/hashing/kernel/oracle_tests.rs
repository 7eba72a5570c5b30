//! Compares the kernel with the bcrypt crate and with published hashes.

use proptest::prelude::*;

use super::{Batch, Cost, Digest, Kernel, LANES_MAX, LaneJob, PasswordKey};

#[derive(Debug, Clone)]
struct Case {
    password: Vec<u8>,
    salt: [u8; 16],
    cost: u32,
}

impl Case {
    fn job(&self) -> LaneJob {
        LaneJob {
            key: PasswordKey::new(&self.password).unwrap(),
            salt: self.salt,
            cost: Cost::new(self.cost).unwrap(),
        }
    }

    /// The crate's raw function expects the NUL, and at most 72 bytes.
    fn expected(&self) -> [u8; 23] {
        let mut password = self.password.clone();
        password.push(0);
        password.truncate(72);
        bcrypt::bcrypt(self.cost, self.salt, &password)[..23].try_into().unwrap()
    }
}

fn case(costs: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = Case> {
    // short and full lengths test the cutting and repeating
    let length = prop_oneof![0..=72usize, 0..=4usize, 70..=72usize];
    let password = length.prop_flat_map(|n| prop::collection::vec(1..=255u8, n));
    (password, any::<[u8; 16]>(), costs).prop_map(|(password, salt, cost)| Case {
        password,
        salt,
        cost,
    })
}

#[derive(Debug, Clone)]
enum Act {
    Insert(Case),
    Step(u32),
    Cancel(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => case(4..=6).prop_map(Act::Insert),
        3 => (1..=40u32).prop_map(Act::Step),
        1 => (0..LANES_MAX).prop_map(Act::Cancel),
    ]
}

fn run_out<T>(batch: &mut Batch<T>) -> Vec<(T, Digest)> {
    let mut done = vec![];
    while !batch.is_empty() {
        batch.step(u32::MAX);
        done.extend(std::iter::from_fn(|| batch.retire()));
    }
    done
}

proptest! {
    // each case computes 78 hashes with every kernel
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn every_kernel_lane_count_and_position_agrees_with_the_crate(
        cases in prop::collection::vec(case(4..=6), LANES_MAX),
    ) {
        let expected: Vec<_> = cases.iter().map(Case::expected).collect();
        for kernel in Kernel::available() {
            for lanes in 1..=LANES_MAX {
                let mut batch = Batch::with_kernel(lanes, kernel);
                for (index, case) in cases[..lanes].iter().enumerate() {
                    batch.insert(case.job(), index).unwrap();
                }
                let done = run_out(&mut batch);
                prop_assert_eq!(done.len(), lanes);
                for (index, digest) in done {
                    prop_assert_eq!(digest.as_bytes(), &expected[index], "{:?} {}", kernel, lanes);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn lanes_that_join_and_leave_at_any_round_agree_with_the_crate(
        kernel in prop::sample::select(Kernel::available()),
        lanes in 1..=LANES_MAX,
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut batch = Batch::with_kernel(lanes, kernel);
        let mut waiting = 0;
        for act in acts {
            match act {
                Act::Insert(case) => match batch.insert(case.job(), case) {
                    Ok(()) => waiting += 1,
                    Err(full) => prop_assert_eq!(full.job.cost.get(), full.tag.cost),
                },
                Act::Step(rounds) => prop_assert!(batch.step(rounds) <= rounds),
                Act::Cancel(which) => {
                    let mut index = 0;
                    waiting -= batch.retain(|_| { index += 1; index - 1 != which });
                }
            }
            while let Some((case, digest)) = batch.retire() {
                waiting -= 1;
                prop_assert!(digest.matches(&case.expected()));
            }
            prop_assert_eq!(batch.busy(), waiting);
        }
        for (case, digest) in run_out(&mut batch) {
            waiting -= 1;
            prop_assert!(digest.matches(&case.expected()));
        }
        prop_assert_eq!(waiting, 0);
    }
}

/// Hashes published by other implementations: the tests of jBCrypt and crypt_blowfish.
const PUBLISHED: &[(&str, &str)] = &[
    ("", "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
    ("", "$2a$08$HqWuK6/Ng6sg9gQzbLrgb.Tl.ZHfXLhvt/SgVyWhQqgqcZ7ZuUtye"),
    ("a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
    ("a", "$2a$08$cfcvVd2aQ8CMvoMpP2EBfeodLEkkFJ9umNEfPD18.hUF62qqlC/V."),
    ("abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
    ("abc", "$2a$08$Ro0CUfOqk6cXEKf3dyaM7OhSCvnwM9s4wIX9JeLapehKK5YdLxKcm"),
    ("abcdefghijklmnopqrstuvwxyz", "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC"),
    ("abcdefghijklmnopqrstuvwxyz", "$2a$08$aTsUwsyowQuzRrDqFflhgekJ8d9/7Z3GV3UcgvzQW3J5zMyrTvlz."),
    (
        "~!@#$%^&*()      ~!@#$%^&*()PNBFRD",
        "$2a$06$fPIsBO8qRqkjj273rfaOI.HtSV9jLDpTbZn782DC6/t7qT67P6FfO",
    ),
    (
        "~!@#$%^&*()      ~!@#$%^&*()PNBFRD",
        "$2a$08$Eq2r4G/76Wv39MzSX262huzPz612MZiYHVUJe/OcOql2jo4.9UxTW",
    ),
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
    ("U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
    (
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
        "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
    ),
    ("U*U", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("U*U", "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
];

/// Decodes bcrypt's own base64 into the first bytes of an array.
fn decode<const N: usize>(text: &str) -> [u8; N] {
    const ALPHABET: &str = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut bits = 0u32;
    let mut held = 0;
    let mut out = vec![];
    for letter in text.chars() {
        bits = (bits << 6) | u32::try_from(ALPHABET.find(letter).unwrap()).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from((bits >> held) & 0xff).unwrap());
        }
    }
    out.try_into().unwrap()
}

#[test]
fn published_hashes_are_reproduced() {
    let mut batch = Batch::new(LANES_MAX);
    let mut left = PUBLISHED.len();
    let mut next = PUBLISHED.iter();
    while left > 0 {
        while !batch.is_full() {
            let Some((password, text)) = next.next() else { break };
            let job = LaneJob {
                key: PasswordKey::new(password.as_bytes()).unwrap(),
                salt: decode(&text[7..29]),
                cost: Cost::new(text[4..6].parse().unwrap()).unwrap(),
            };
            batch.insert(job, *text).unwrap();
        }
        batch.step(u32::MAX);
        while let Some((text, digest)) = batch.retire() {
            assert!(digest.matches(&decode(&text[29..])), "{text}");
            left -= 1;
        }
    }
}

#[test]
fn bytes_above_127_are_not_sign_extended() {
    // crypt_blowfish's vectors for the $2x$ bug: the right results, as $2y$ gives them
    let cases: [(&[u8], &str); 3] = [
        (b"\xa3", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"),
        (b"\xff\xff\xa3", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
        (b"\xff\xa3345", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.nRht2l/HRhr6zmCp9vYUvvsqynflf9e"),
    ];
    for (password, text) in cases {
        let mut batch = Batch::new(1);
        let job = LaneJob {
            key: PasswordKey::new(password).unwrap(),
            salt: decode(&text[7..29]),
            cost: Cost::new(5).unwrap(),
        };
        batch.insert(job, ()).unwrap();
        batch.step(32);
        let ((), digest) = batch.retire().unwrap();
        assert!(digest.matches(&decode(&text[29..])), "{text}");
    }
}
