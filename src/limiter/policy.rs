//! The fixed set of limits, and a small struct that holds one thing for each.

/// A limit that requests are counted under.
///
/// The set is fixed in code: its names are metric labels and header values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Creating an account.
    Register,
    /// Asking for tokens with a password.
    Login,
    /// Trading a refresh token.
    Refresh,
    /// A client's question about a token, or its end. In place of [`Policy::Global`]: a service asks
    /// for every request that it serves, all from one address.
    Clients,
    /// Every other limited request, whatever its route.
    Global,
}

impl Policy {
    /// Every policy, once.
    pub const ALL: [Self; 5] =
        [Self::Register, Self::Login, Self::Refresh, Self::Clients, Self::Global];

    /// Every policy, once, the most used first.
    pub(super) const BY_USE: [Self; 5] =
        [Self::Global, Self::Login, Self::Clients, Self::Refresh, Self::Register];

    /// Whether all nodes count it together, if they have a store for that: the limits on passwords
    /// and on writes. The others protect a node, and would cost a round trip for each request.
    pub(super) const fn is_shared(self) -> bool {
        match self {
            Self::Register | Self::Login | Self::Refresh => true,
            Self::Clients | Self::Global => false,
        }
    }

    /// The name for metric labels and for the `RateLimit` fields: lower-case ASCII letters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Clients => "clients",
            Self::Global => "global",
        }
    }
}

/// One `T` for each policy. Fields, not an array: no index can be out of range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PerPolicy<T> {
    pub(super) global: T,
    pub(super) login: T,
    pub(super) clients: T,
    pub(super) refresh: T,
    pub(super) register: T,
}

impl<T> PerPolicy<T> {
    pub(super) const fn get(&self, policy: Policy) -> &T {
        match policy {
            Policy::Register => &self.register,
            Policy::Login => &self.login,
            Policy::Refresh => &self.refresh,
            Policy::Clients => &self.clients,
            Policy::Global => &self.global,
        }
    }

    pub(super) const fn get_mut(&mut self, policy: Policy) -> &mut T {
        match policy {
            Policy::Register => &mut self.register,
            Policy::Login => &mut self.login,
            Policy::Refresh => &mut self.refresh,
            Policy::Clients => &mut self.clients,
            Policy::Global => &mut self.global,
        }
    }

    #[cfg(test)]
    pub(super) fn map<U>(self, mut change: impl FnMut(T) -> U) -> PerPolicy<U> {
        PerPolicy {
            register: change(self.register),
            login: change(self.login),
            refresh: change(self.refresh),
            clients: change(self.clients),
            global: change(self.global),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_has_its_own_place_and_name() {
        let mut names = PerPolicy::default();
        for policy in Policy::ALL {
            *names.get_mut(policy) = policy.as_str();
        }
        let expected = PerPolicy {
            register: "register",
            login: "login",
            refresh: "refresh",
            clients: "clients",
            global: "global",
        };
        assert_eq!(names, expected);
        for policies in [Policy::ALL, Policy::BY_USE] {
            let kept: Vec<_> = policies.iter().map(|policy| *names.get(*policy)).collect();
            assert!(policies.iter().map(|policy| policy.as_str()).eq(kept));
        }
        let lengths = PerPolicy { register: 8, login: 5, refresh: 7, clients: 7, global: 6 };
        assert_eq!(names.map(str::len), lengths);
    }
}
