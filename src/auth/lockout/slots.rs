//! A few slots for the keys that share a set of a lockout table.

/// Up to `N` values by key. A new key takes the place of another one when all are taken.
#[derive(Debug)]
pub(super) struct Slots<K, V, const N: usize>(Vec<(K, V)>);

impl<K, V, const N: usize> Default for Slots<K, V, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + PartialEq, V, const N: usize> Slots<K, V, N> {
    pub(super) fn get(&mut self, key: K) -> Option<&mut V> {
        self.0.iter_mut().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// Whether a new key would get a slot. See [`Self::get_or_insert`].
    pub(super) fn has_room<R>(&self, rank: impl Fn(&V) -> Option<R>) -> bool {
        self.0.len() < N || self.0.iter().any(|(_, value)| rank(value).is_some())
    }

    /// Returns the value of a key, or inserts `new`.
    ///
    /// If all slots are taken, a new key evicts the value of the lowest `rank`. A value without a
    /// rank stays. Returns `None` if that leaves no slot.
    pub(super) fn get_or_insert<R: Ord>(
        &mut self,
        key: K,
        new: V,
        rank: impl Fn(&V) -> Option<R>,
    ) -> Option<&mut V> {
        let own = self.0.iter().position(|(other, _)| *other == key);
        if own.is_none() {
            if self.0.len() >= N {
                let ranks = self.0.iter().enumerate();
                let ranks = ranks.filter_map(|(slot, (_, value))| Some((rank(value)?, slot)));
                self.0.swap_remove(ranks.min()?.1);
            }
            self.0.push((key, new));
        }
        let slot = own.unwrap_or(self.0.len() - 1);
        self.0.get_mut(slot).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let slot = self.0.iter().position(|(other, _)| *other == key)?;
        Some(self.0.swap_remove(slot).1)
    }

    /// Removes all other values, and frees their memory.
    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.0.retain(|(_, value)| keep(value));
        self.0.shrink_to_fit();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Even values have no rank. For any keys, a slot is lost only to a new key in a full set,
        /// and then it is the lowest odd value.
        #[test]
        fn a_new_key_evicts_the_lowest_rank_of_a_full_set(keys in prop::collection::vec((0..30_u8, 0..99_u32), 1..99)) {
            let rank = |value: &u32| (value % 2 == 1).then_some(*value);
            let mut slots: Slots<u8, u32, 4> = Slots::default();
            for (key, new) in keys {
                let before = slots.0.clone();
                let own = before.iter().find(|(other, _)| *other == key).map(|(_, value)| *value);
                let lowest = before.iter().filter(|(_, value)| rank(value).is_some()).min_by_key(|(_, value)| *value);
                prop_assert_eq!(slots.has_room(rank), before.len() < 4 || lowest.is_some());
                let kept = slots.get_or_insert(key, new, rank).copied();
                match (own, lowest) {
                    (Some(value), _) => prop_assert!(kept == Some(value) && slots.0 == before),
                    (None, _) if before.len() < 4 => prop_assert_eq!(slots.0.len(), before.len() + 1),
                    (None, Some((_, lowest))) => {
                        prop_assert_eq!(kept, Some(new));
                        let lost: Vec<_> = before.iter().filter(|slot| !slots.0.contains(slot)).collect();
                        prop_assert!(matches!(lost[..], [(_, value)] if value == lowest));
                    }
                    (None, None) => prop_assert!(kept.is_none() && slots.0 == before),
                }
                prop_assert!(slots.0.len() <= 4);
            }
        }

        #[test]
        fn a_removed_or_filtered_value_is_gone(keys in prop::collection::vec(0..9_u8, 0..20), gone in 0..9_u8) {
            let mut slots: Slots<u8, u8, 9> = Slots::default();
            for key in &keys {
                slots.get_or_insert(*key, *key, |_| None::<()>);
            }
            prop_assert_eq!(slots.remove(gone), keys.contains(&gone).then_some(gone));
            prop_assert_eq!(slots.get(gone), None);
            slots.retain(|key| *key < 5);
            prop_assert!(slots.iter().all(|(_, key)| *key < 5));
            prop_assert!((0..5).all(|key| slots.get(key).is_some() == (keys.contains(&key) && key != gone)));
        }
    }
}
