//! Builds the object store that a URI names, from the environment and [`SourceOptions::store_config`].

use super::connect::Confined;
use super::uri::{Kind, Place};
use super::{SourceOptions, failure};
use crate::{Error, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Variables that together are one identity: half of one and half of another would be refused.
const AWS_IDENTITY: [&str; 8] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Said when S3 does not answer and no credentials are set: object_store then asks the machine's metadata service,
/// whose failure would puzzle the reader.
const NO_IDENTITY: &str = "no credentials are set: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                           AWS_SKIP_SIGNATURE=true for a public bucket";

/// A store, and what to add if it refuses us.
pub(super) struct Store {
    pub(super) client: Arc<dyn ObjectStore>,
    pub(super) hint: Option<&'static str>,
}

/// The store of `place`. Nothing is sent yet.
pub(super) fn build(place: &Place, options: &SourceOptions) -> Result<Store> {
    let client = match place.kind {
        Kind::S3 => return s3(place, options),
        Kind::Gcs => gcs(place, options),
        Kind::Azure => azure(place, options),
        Kind::Http => http(place, options),
    };
    Ok(Store { client: client?, hint: None })
}

fn s3(place: &Place, options: &SourceOptions) -> Result<Store> {
    let settings = settings::<AmazonS3ConfigKey>(options)?;
    let own_identity = settings.iter().any(|(key, _)| *key == AmazonS3ConfigKey::AccessKeyId);
    let mut builder = if own_identity { s3_without_identity() } else { AmazonS3Builder::from_env() };
    for (key, value) in limits(options) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    for (key, value) in settings {
        if key == AmazonS3ConfigKey::Endpoint {
            // AWS_ENDPOINT_URL_S3 of the environment would otherwise win over the endpoint given here.
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, value.clone());
        }
        builder = builder.with_config(key, value);
    }
    let hint = (!has_identity(&builder)).then_some(NO_IDENTITY);
    if !options.follow_redirects {
        builder = builder.with_http_connector(Confined);
    }
    let store = builder.with_bucket_name(bucket(place)).with_retry(retry(options)).build();
    Ok(Store { client: Arc::new(store.map_err(|error| refused(&error))?), hint })
}

fn has_identity(builder: &AmazonS3Builder) -> bool {
    let given = [
        AmazonS3ConfigKey::AccessKeyId,
        AmazonS3ConfigKey::WebIdentityTokenFile,
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ];
    let anonymous = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature);
    given.iter().any(|key| builder.get_config_value(key).is_some())
        || anonymous.is_some_and(|value| value != "false")
}

/// As `AmazonS3Builder::from_env`, without whose credentials to use.
fn s3_without_identity() -> AmazonS3Builder {
    let others = std::env::vars_os().filter_map(|(key, value)| {
        let (key, value) = (key.into_string().ok()?, value.into_string().ok()?);
        let wanted = key.starts_with("AWS_") && !AWS_IDENTITY.contains(&key.as_str());
        let key = wanted.then(|| key.to_ascii_lowercase().parse().ok())??;
        Some((key, value))
    });
    others.fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
}

fn gcs(place: &Place, options: &SourceOptions) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::from_env();
    for (key, value) in limits(options) {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    for (key, value) in settings(options)? {
        builder = builder.with_config(key, value);
    }
    if !options.follow_redirects {
        builder = builder.with_http_connector(Confined);
    }
    let store = builder.with_bucket_name(bucket(place)).with_retry(retry(options)).build();
    Ok(Arc::new(store.map_err(|error| refused(&error))?))
}

fn azure(place: &Place, options: &SourceOptions) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::from_env();
    for (key, value) in limits(options) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    for (key, value) in settings(options)? {
        builder = builder.with_config(key, value);
    }
    if !options.follow_redirects {
        builder = builder.with_http_connector(Confined);
    }
    // The URL names the container and perhaps the account and its domain; it holds no secret (`uri::parse`).
    let store = builder.with_url(place.store.as_str()).with_retry(retry(options)).build();
    Ok(Arc::new(store.map_err(|error| refused(&error))?))
}

fn http(place: &Place, options: &SourceOptions) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = HttpBuilder::new().with_url(place.store.as_str());
    // Whoever types http:// means it.
    let plain = (place.store.scheme() == "http").then(|| (ClientConfigKey::AllowHttp, "true".to_owned()));
    for (key, value) in limits(options).into_iter().chain(plain).chain(settings(options)?) {
        builder = builder.with_config(key, value);
    }
    if !options.follow_redirects {
        builder = builder.with_http_connector(Confined);
    }
    let store = builder.with_retry(retry(options)).build();
    Ok(Arc::new(store.map_err(|error| refused(&error))?))
}

fn bucket(place: &Place) -> &str {
    place.store.host_str().unwrap_or_default()
}

fn settings<K: FromStr>(options: &SourceOptions) -> Result<Vec<(K, String)>> {
    let parse = |(key, value): &(String, String)| match key.to_ascii_lowercase().parse() {
        Ok(known) => Ok((known, value.clone())),
        Err(_) => Err(Error::invalid(format!("'{key}' is not a setting of this kind of store"))),
    };
    options.store_config.iter().map(parse).collect()
}

/// The whole-request limit of object_store (30 s, body included) would cut off slow links: the range limit takes its
/// place, and silence is limited instead.
fn limits(options: &SourceOptions) -> [(ClientConfigKey, String); 3] {
    let text = |time: Duration| format!("{}ms", time.as_millis().max(1));
    [
        (ClientConfigKey::Timeout, text(options.range_timeout)),
        (ClientConfigKey::ConnectTimeout, text(options.connect_timeout)),
        (ClientConfigKey::ReadTimeout, text(options.read_timeout)),
    ]
}

fn retry(options: &SourceOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: options.backoff, ..BackoffConfig::default() },
        max_retries: usize::try_from(options.retries).unwrap_or(usize::MAX),
        // Leaves the last try a quarter of the range's time.
        retry_timeout: options.range_timeout.mul_f64(0.75),
    }
}

fn refused(error: &object_store::Error) -> Error {
    Error::invalid(format!("the store's settings do not suit: {}", failure::cause(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_key_a_token_or_none_on_purpose() {
        let given = |key: &str, value| AmazonS3Builder::new().with_config(key.parse().unwrap(), value);
        assert!(!has_identity(&AmazonS3Builder::new()));
        assert!(!has_identity(&given("aws_region", "us-east-1")));
        assert!(!has_identity(&given("aws_skip_signature", "false")));
        for (key, value) in [
            ("aws_access_key_id", "AKIA"),
            ("aws_web_identity_token_file", "/token"),
            ("aws_container_credentials_full_uri", "http://127.0.0.1/"),
            ("aws_skip_signature", "true"),
        ] {
            assert!(has_identity(&given(key, value)), "{key}");
        }
    }
}
