//! Rules and warnings that involve several settings.

use super::{Problem, Settings, issuer};
use crate::http::TrustedProxies;
use crate::limiter::LimiterConfig;

/// Lowest recommended cost. Below it, offline attacks on stolen hashes are too cheap (OWASP Password
/// Storage Cheat Sheet: a work factor of at least 10).
const COST_RECOMMENDED_MIN: u32 = 10;

pub(super) fn across_fields(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut rule = |holds: bool, variable, message: &str| {
        if !holds {
            problems.push(Problem { variable, message: message.to_owned() });
        }
    };
    rule(
        settings.db_pool_min.0 <= settings.db_pool_max.0,
        "STAUNCH_DB_POOL_MIN",
        "must be at most STAUNCH_DB_POOL_MAX",
    );
    rule(
        settings.access_token_ttl.0 <= settings.refresh_token_ttl.0,
        "STAUNCH_ACCESS_TOKEN_TTL",
        "must be at most STAUNCH_REFRESH_TOKEN_TTL",
    );
    rule(
        settings.refresh_grace.0 < settings.refresh_token_ttl.0,
        "STAUNCH_REFRESH_GRACE",
        "must be less than STAUNCH_REFRESH_TOKEN_TTL",
    );
    rule(
        !settings.limiter().has_too_many_quotas(),
        "STAUNCH_LIMIT_GLOBAL",
        &format!(
            "the STAUNCH_LIMIT_ settings may list {} quotas in total",
            LimiterConfig::QUOTAS_MAX
        ),
    );
    rule(
        settings.tls_cert.is_some() || settings.tls_key.is_none(),
        "STAUNCH_TLS_CERT",
        "must be set if STAUNCH_TLS_KEY is set",
    );
    rule(
        settings.tls_key.is_some() || settings.tls_cert.is_none(),
        "STAUNCH_TLS_KEY",
        "must be set if STAUNCH_TLS_CERT is set",
    );
    rule(
        !settings.proxy_protocol || settings.trusted_proxies != TrustedProxies::default(),
        "STAUNCH_PROXY_PROTOCOL",
        "needs STAUNCH_TRUSTED_PROXIES: only proxies listed there may connect",
    );
    let fixed = settings.listen.port() != 0;
    rule(
        !fixed || settings.metrics_listen != Some(settings.listen),
        "STAUNCH_METRICS_LISTEN",
        "must differ from STAUNCH_LISTEN",
    );
    rule(
        settings.public_health || settings.metrics_listen.is_some(),
        "STAUNCH_PUBLIC_HEALTH",
        "off needs STAUNCH_METRICS_LISTEN: otherwise no listener serves /health",
    );
    problems
}

pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    if settings.bcrypt_cost.0 < COST_RECOMMENDED_MIN {
        warnings.push(format!(
            "STAUNCH_BCRYPT_COST={} is weak: use {COST_RECOMMENDED_MIN} or more outside tests",
            settings.bcrypt_cost.0
        ));
    }
    if !settings.listen.ip().is_loopback() && settings.metrics_listen.is_none() {
        warnings.push(
            "/metrics is open to every client of the main listener: set STAUNCH_METRICS_LISTEN"
                .into(),
        );
    }
    let issuer = settings.jwt_issuer.as_deref().filter(|issuer| issuer.starts_with("http:"));
    if let (Some(_), Some(issuer)) = (&settings.tls_cert, issuer) {
        warnings.push(format!(
            "STAUNCH_JWT_ISSUER={issuer} is not the base URL that HTTPS clients use"
        ));
    }
    warnings.extend(issuer::warning(settings));
    warnings
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Problem};

    fn read(given: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
        Config::read(|setting| {
            let found = given.iter().find(|(variable, _)| *variable == setting.variable);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn every_setting_has_a_default() {
        let config = read(&[]).unwrap();
        assert_eq!(config.settings.bcrypt_cost.0, 12);
        assert!(config.warnings().is_empty());
    }

    #[test]
    fn every_invalid_setting_is_reported_with_the_allowed_values() {
        let problems = read(&[
            ("STAUNCH_BCRYPT_COST", "16"),
            ("STAUNCH_LISTEN", "localhost"),
            ("STAUNCH_LIMIT_LOGIN", "many"),
            ("STAUNCH_TRUSTED_PROXIES", "10.0.0.0/8,nowhere"),
            ("STAUNCH_HASH_DEADLINE", "1ms"),
            ("STAUNCH_OFFLINE", "maybe"),
            ("STAUNCH_DATABASE_URL", "mysql://root:s3cret@db"),
        ])
        .unwrap_err();
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 7, "{text:?}");
        assert!(!format!("{text:?}").contains("s3cret"), "{text:?}");
        assert!(
            text.contains(&"STAUNCH_BCRYPT_COST: must be a whole number from 4 to 15".into()),
            "{text:?}"
        );
        assert!(text.iter().any(|line| line.contains("from 100ms to 5m")), "{text:?}");
    }

    #[test]
    fn settings_are_checked_against_each_other() {
        let problems = read(&[
            ("STAUNCH_DB_POOL_MIN", "60"),
            ("STAUNCH_ACCESS_TOKEN_TTL", "2h"),
            ("STAUNCH_REFRESH_TOKEN_TTL", "1h"),
            ("STAUNCH_METRICS_LISTEN", "127.0.0.1:8080"),
            ("STAUNCH_LIMIT_LOGIN", "10/min,100/h"),
            ("STAUNCH_LIMIT_REGISTER", "1/s,5/min,20/h"),
            ("STAUNCH_LIMIT_GLOBAL", "200/min,5000/h"),
            ("STAUNCH_TLS_CERT", "cert.pem"),
            ("STAUNCH_PROXY_PROTOCOL", "on"),
        ])
        .unwrap_err();
        let text = format!("{problems:?}");
        assert_eq!(problems.len(), 6, "{text}");
        assert!(text.contains("STAUNCH_TLS_KEY") && text.contains("STAUNCH_PROXY"), "{text}");
        assert!(text.contains("may list 7 quotas"), "{text}");
    }

    // Case F2 of the field list: any client could request readiness without limit.
    #[test]
    fn health_can_leave_the_main_listener_only_for_the_metrics_listener() {
        let off = ("STAUNCH_PUBLIC_HEALTH", "off");
        let problems = read(&[off]).unwrap_err();
        assert!(problems[0].to_string().contains("needs STAUNCH_METRICS_LISTEN"), "{problems:?}");
        assert!(
            !read(&[off, ("STAUNCH_METRICS_LISTEN", "127.0.0.1:9")])
                .unwrap()
                .settings
                .public_health
        );
    }

    // Reliability: F11.
    #[test]
    fn metrics_on_a_public_listener_cause_a_warning() {
        let warned = |given: &'static [(&'static str, &'static str)]| {
            let config = read(given).unwrap();
            config.warnings().iter().any(|warning| warning.contains("/metrics is open"))
        };
        assert!(warned(&[("STAUNCH_LISTEN", "0.0.0.0:80")]));
        assert!(warned(&[("STAUNCH_LISTEN", "[::]:80")]));
        assert!(!warned(&[("STAUNCH_LISTEN", "127.0.0.1:80")]));
        assert!(!warned(&[
            ("STAUNCH_LISTEN", "0.0.0.0:80"),
            ("STAUNCH_METRICS_LISTEN", "127.0.0.1:9"),
        ]));
    }

    #[test]
    fn unsafe_settings_cause_warnings() {
        let config =
            read(&[("STAUNCH_BCRYPT_COST", "4"), ("STAUNCH_LISTEN", "0.0.0.0:80")]).unwrap();
        assert_eq!(config.warnings().len(), 3);
    }
}
