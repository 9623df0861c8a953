//! The configuration as a whole: every mistake at once, ranks of sources, the sample file, secrets.

use super::read::Values;
use super::schema::{self, KEYS, ROOT_KEYS};
use super::value::{Kind, Value, show_time};
use super::*;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/spectrald.example.toml");

/// A folder with files of these texts.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load(text: &str, overrides: &Overrides) -> Result<Config> {
    load_as(Process::Neither, text, overrides)
}

fn load_as(process: Process, text: &str, overrides: &Overrides) -> Result<Config> {
    let folder = folder(&[("s.toml", text)]);
    Config::load_for(process, Some(&folder.path().join("s.toml")), overrides)
}

/// The lines of what is wrong with `text`, the folder's name left out.
fn mistakes(process: Process, text: &str, overrides: &Overrides) -> Vec<String> {
    let error = load_as(process, text, overrides).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
    let short = |line: &str| line.find("s.toml").map_or(line, |at| &line[at..]).to_owned();
    error.message().lines().map(short).collect()
}

fn bare(values: &Values) -> Vec<(&str, &Value)> {
    values.iter().map(|(key, (value, _))| (*key, value)).collect()
}

#[test]
fn the_sample_file_is_what_the_table_of_keys_says() {
    let file = fs::read_to_string(SAMPLE).unwrap();
    assert!(
        file == Config::example_toml(),
        "spectrald.example.toml is stale: write Config::example_toml() to it"
    );
    for key in KEYS.iter().chain(ROOT_KEYS) {
        assert!(file.contains(key.about), "{}", key.name);
    }
}

#[test]
fn every_default_of_the_sample_file_is_the_built_in_one() {
    let sample = Config::load(Some(&PathBuf::from(SAMPLE)), &Overrides::new()).unwrap();
    let default = Config::default();
    assert_eq!(bare(&sample.values), bare(&default.values));
    assert!(matches!(sample.origin_of("limits.max_streams"), Origin::File { line, .. } if line > 50));
    assert_eq!(sample.limits, default.limits);
    assert_eq!(sample.leases, default.leases);
    assert_eq!(sample.roots.len(), 0);
}

#[test]
fn every_key_of_the_sample_file_is_known_and_its_example_fits() {
    let file = fs::read_to_string(SAMPLE).unwrap();
    let uncommented = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if rest.contains(" = ") && !rest.starts_with('`') || rest.starts_with("[[") => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    let text: Vec<String> = file.lines().map(uncommented).collect();
    let found = mistakes(Process::Neither, &text.join("\n"), &Overrides::new());
    // The one file that is read at once does not exist.
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains("root.secret_access_key_file: /etc/spectrald/s3-secret cannot be read"),
        "{found:?}"
    );
}

#[test]
fn defaults_are_these() {
    let config = Config::default();
    assert_eq!(config.coordinator.listen.to_string(), "127.0.0.1:7600");
    assert_eq!(config.coordinator.http_listen.unwrap().to_string(), "127.0.0.1:7601");
    assert_eq!(config.worker.coordinator, "http://127.0.0.1:7600");
    assert_eq!(config.worker.report_every, Duration::from_secs(1));
    assert_eq!(config.worker.drain_grace, Duration::from_secs(25));
    assert_eq!((config.limits.max_streams, config.limits.max_message_bytes), (128, 4 << 20));
    assert_eq!(config.limits.max_tensor_bytes, 64 << 30);
    assert_eq!(config.leases.no_worker_timeout, Duration::from_secs(86_400));
    assert_eq!((config.leases.max_kills, config.leases.batch_flops), (3, 2_000_000_000));
    assert_eq!(config.store.page_cache_bytes, 128 << 20);
    assert_eq!((config.log.format, config.log.filter.as_str()), (LogFormat::Text, "info"));
    config.check_coordinator().unwrap();
    config.check_worker().unwrap();
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"
[coordinator]
lisen = "127.0.0.1:1"
listen = 7600
http_listen = "localhost"
allow_local_files = "yes"
max_kills = 3

[coordinator.tls]
cert = "/nowhere/tls.crt"

[limits]
max_streams = 0
max_tensors = 1.5
max_tensor_bytes = "many"
max_connections = 10
max_connections_per_peer = 20
max_uploads = 99999999999999999999999999999999999999999999

[leases]
lease_timeout = "2s"
progress_timeout = 600

[limit]
x = 1

[[root]]
name = "a b"
uri = "s3://models/x"
colour = "red"

[[root]]
uri = "s3://u:secret@models/"
endpoint = "http://s3.example"

[log]
format = "xml"
"#;
    let found = mistakes(Process::Coordinator, text, &Overrides::new());
    let expected = [
        "s.toml:3: coordinator.lisen: unknown key; did you mean 'listen'?",
        "s.toml:4: coordinator.listen: expected a string \"IP:PORT\", found a whole number",
        "s.toml:5: coordinator.http_listen: 'localhost' is not IP:PORT, such as 127.0.0.1:7600 or [::1]:7600",
        "s.toml:6: coordinator.allow_local_files: expected true or false, found a string",
        "s.toml:7: coordinator.max_kills: unknown key; 'max_kills' belongs to [leases]",
        "s.toml:10: coordinator.tls.cert: needs coordinator.tls.key",
        "s.toml:10: coordinator.tls.cert: /nowhere/tls.crt cannot be read: No such file or directory (os error 2)",
        "s.toml:13: limits.max_streams: 0 is out of range: 1 to 100000",
        "s.toml:14: limits.max_tensors: expected a whole number, found a number with a point",
        "s.toml:15: limits.max_tensor_bytes: 'many' is not a size, such as \"8GiB\" or 8589934592",
        "s.toml:17: limits.max_connections_per_peer: 20 is more than limits.max_connections = 10",
        "s.toml:18: limits.max_uploads: the number is out of range: 0 to 100000",
        "s.toml:22: leases.progress_timeout: expected a duration such as \"30s\", found a whole number",
        "s.toml:24: limit: unknown section; did you mean [limits]?",
        "s.toml:28: root.name: 'a b' is not a name: 1 to 64 of A-Z a-z 0-9 . _ -",
        "s.toml:29: root.uri: 's3://models/x' does not end in '/': a root is a bucket or a folder",
        "s.toml:30: root.colour: unknown key",
        "s.toml:32: root.name: is needed",
        "s.toml:33: root.uri: 's3://…' has credentials in it: they belong in the root's configuration",
        "s.toml:34: root.endpoint: begins with http://, which needs allow_http = true",
        "s.toml:37: log.format: 'xml' is not one of text, json",
        "default: worker.report_every: 1s is more than a third of leases.lease_timeout = 2s: one lost report would \
         cost a worker its tasks",
    ];
    assert_eq!(found, expected, "{found:#?}");
}

#[test]
fn what_is_not_toml_has_its_line_and_the_rest_is_still_read() {
    let found =
        mistakes(Process::Neither, "[limits]\nmax_streams = \n[leases]\nmax_kill = 3\n", &Overrides::new());
    assert!(found[0].starts_with("s.toml:2: not TOML: "), "{found:?}");
    assert!(
        found.contains(&"s.toml:4: leases.max_kill: unknown key; did you mean 'max_kills'?".to_owned()),
        "{found:?}"
    );
    let found = mistakes(Process::Neither, "limits = 3\n[root]\nname = 'a'\n", &Overrides::new());
    let expected = [
        "s.toml:1: limits: expected a table, found a whole number",
        "s.toml:2: root: roots are tables of an array: write [[root]]",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake() {
    let folder = folder(&[("binary", "")]);
    fs::write(folder.path().join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    fs::write(folder.path().join("long"), vec![b'#'; (1 << 20) + 1]).unwrap();
    for (name, what) in [
        ("none", "cannot be read: No such file"),
        ("binary", "cannot be read: stream did not contain valid UTF-8"),
        ("long", "is longer than 1048576 bytes"),
    ] {
        let error = Config::load(Some(&folder.path().join(name)), &Overrides::new()).unwrap_err();
        assert!(error.message().contains(what), "{error}");
        assert_eq!(error.message().lines().count(), 1);
    }
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_command() {
    let variables = |names: &[(&str, &str)]| {
        Overrides::from_variables(names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    };
    let text = "[limits]\nmax_streams = 2\nmax_uploads = 2\nmax_units = 2\n";
    let mut all = variables(&[
        ("SPECTRALD_LIMITS_MAX_UPLOADS", "3"),
        ("SPECTRALD_LIMITS_MAX_UNITS", "3"),
        ("SPECTRALD_LOG_FORMAT", ""),
    ]);
    all.flag("limits.max_units", "4", "--max-units");
    for key in ["limits.max_layers", "limits.max_streams", "limits.max_uploads", "limits.max_units"] {
        all.command_default(key, "1", "serve");
    }
    let config = load(text, &all).unwrap();
    let limits = &config.limits;
    assert_eq!((limits.max_layers, limits.max_streams, limits.max_uploads, limits.max_units), (1, 2, 3, 4));
    assert_eq!(config.origin_of("limits.max_layers"), Origin::Command("serve".into()));
    assert!(config.origin_of("limits.max_streams").to_string().ends_with("s.toml:2"));
    assert_eq!(
        config.origin_of("limits.max_uploads"),
        Origin::Environment("SPECTRALD_LIMITS_MAX_UPLOADS".into())
    );
    assert_eq!(config.origin_of("limits.max_units"), Origin::Flag("--max-units".into()));
    assert_eq!(config.origin_of("log.format"), Origin::Default);
}

#[test]
fn mistakes_of_variables_and_flags_name_them() {
    let variables = [
        ("SPECTRALD_LIMITS_MAX_STREAM", "3"),
        ("SPECTRALD_COORDINATOR_ALLOW_LOCAL_FILES", "maybe"),
        ("SPECTRALD_ROOT", "a=s3://a/,b"),
    ];
    let mut all =
        Overrides::from_variables(variables.map(|(name, value)| (name.into(), value.into())).into_iter());
    all.flag("coordinator.listen", "7600", "--listen");
    all.flag("worker.memory", "8 GiB", "--memory");
    all.flag("worker.threads", "-1", "--threads");
    let found = mistakes(Process::Neither, "[limits]\nmax_streams = 'x'\n", &all);
    let expected = [
        "s.toml:2: limits.max_streams: expected a whole number, found a string",
        "SPECTRALD_COORDINATOR_ALLOW_LOCAL_FILES: coordinator.allow_local_files: 'maybe' is neither true nor false",
        "SPECTRALD_LIMITS_MAX_STREAM: limits.max_stream: unknown key; did you mean 'max_streams'?",
        "SPECTRALD_ROOT: root: must read NAME=URI, several with ',' between",
        "--listen: coordinator.listen: '7600' is not IP:PORT, such as 127.0.0.1:7600 or [::1]:7600",
        "--threads: worker.threads: -1 is out of range: 1 to 4096",
    ];
    assert_eq!(found, expected, "{found:#?}");
}

#[test]
fn both_ends_of_every_range_are_allowed_and_no_further() {
    let accepts = |key: &schema::Key, text: &str| {
        super::value::read(key.kind, &super::value::Raw::Untyped(text.to_owned())).is_ok()
    };
    let mut seen = 0;
    for key in KEYS {
        let (least, most) = match key.kind {
            Kind::Count(least, most) | Kind::Bytes(least, most) | Kind::Time(least, most) => (least, most),
            _ => continue,
        };
        let text = |number: u64| match key.kind {
            Kind::Time(..) => show_time(Duration::from_millis(number)),
            _ => number.to_string(),
        };
        assert!(accepts(key, &text(least)) && accepts(key, &text(most)), "{}", key.name);
        assert!(!accepts(key, &text(most + 1)), "{}", key.name);
        assert!(least == 0 || !accepts(key, &text(least - 1)), "{}", key.name);
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn the_largest_values_fit_their_types() {
    let mut all = Overrides::new();
    for key in KEYS {
        if let Kind::Count(_, most) = key.kind {
            all.flag(key.name, most.to_string(), "--x");
        }
    }
    let config = Config::load(None, &all).unwrap();
    for key in KEYS {
        if let Kind::Count(_, most) = key.kind {
            assert_eq!(config.values.get(key.name).unwrap().0, Value::Number(most));
        }
    }
    assert_eq!((config.limits.max_streams, config.limits.max_tensors), (100_000, 100_000_000));
    assert_eq!((config.leases.max_kills, config.leases.max_world_failures), (1000, 1_000_000));
    assert_eq!((config.leases.batch_flops, config.store.export_keep), (1 << 62, 10_000));
    assert_eq!(config.worker.threads, Some(4096));
}

#[test]
fn off_loopback_needs_authentication() {
    let folder = folder(&[("tokens", "x"), ("pem", "x")]);
    let (tokens, pem) = (folder.path().join("tokens"), folder.path().join("pem"));
    let listen = |address: &str, more: &str| {
        load_as(
            Process::Coordinator,
            &format!("[coordinator]\nlisten = '{address}'\n{more}"),
            &Overrides::new(),
        )
    };
    for address in ["0.0.0.0:7600", "[::]:7600", "10.0.0.1:7600", "[::ffff:10.0.0.1]:1"] {
        let error = listen(address, "").unwrap_err();
        let what = "is not loopback, and there is no authentication: set coordinator.tokens_file, or coordinator.tls with client_ca";
        assert!(error.message().contains(&format!(":2: coordinator.listen: {address} {what}")), "{error}");
        listen(address, &format!("tokens_file = '{}'", tokens.display())).unwrap();
        let tls = format!("[coordinator.tls]\ncert = '{0}'\nkey = '{0}'\nclient_ca = '{0}'", pem.display());
        listen(address, &tls).unwrap();
    }
    for address in ["127.0.0.1:0", "127.1.2.3:1", "[::1]:7600", "[::ffff:127.0.0.1]:1"] {
        listen(address, "allow_local_files = true").unwrap();
    }
    let error =
        listen("0.0.0.0:1", &format!("allow_local_files = true\ntokens_file = '{}'", tokens.display()));
    let message = error.unwrap_err().message().to_owned();
    assert!(
        message.ends_with(
            "coordinator.allow_local_files: is only for loopback, and coordinator.listen is 0.0.0.0:1"
        ),
        "{message}"
    );
}

#[test]
fn the_rules_of_a_worker() {
    let folder = folder(&[("two", "a\nb\n"), ("empty", ""), ("good", "spd_x\n")]);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let check = |text: &str| match load_as(Process::Worker, text, &Overrides::new()) {
        Ok(_) => String::new(),
        Err(error) => error.message().to_owned(),
    };
    assert_eq!(check(&format!("[worker]\ntoken_file = '{}'", at("good"))), "");
    assert!(
        check(&format!("[worker]\ntoken_file = '{}'", at("two")))
            .contains("must hold one line that is not empty")
    );
    assert!(check(&format!("[worker]\ntoken_file = '{}'", at("empty"))).contains("empty is empty"));
    assert!(
        check(&format!("[worker]\ntoken_file = '{}'", folder.path().display()))
            .contains("is a folder, not a file")
    );
    let text = format!("[worker.tls]\nca = '{}'", at("good"));
    assert!(check(&text).contains("worker.tls.ca: needs a URL that begins with https://, and worker.coordinator is http://127.0.0.1:7600"));
    for (url, what) in [
        ("ftp://h", "scheme 'ftp'"),
        ("http://u:hunter2@h", "credentials in a URL"),
        ("https://h/path", "has no path"),
        ("h:7600", "scheme 'h'"),
        ("", "is empty"),
    ] {
        let message = check(&format!("[worker]\ncoordinator = '{url}'"));
        assert!(message.contains(what) && !message.contains("hunter2"), "{url}: {message}");
    }
}

#[test]
fn roots_are_checked_one_by_one_and_between_each_other() {
    let folder = folder(&[("secret", "hunter2\n")]);
    let secret = folder.path().join("secret").display().to_string();
    let root = |text: &str| {
        let found = load(&format!("[[root]]\nname = 'a'\n{text}"), &Overrides::new());
        found.map(|config| config.roots).map_err(|error| error.message().to_owned())
    };
    for (text, what) in [
        ("uri = 's3://b/m'", "root.uri: 's3://b/m' does not end in '/'"),
        ("uri = 'S3://b/m/'", "the scheme must be written in lower case: s3"),
        ("uri = '/srv/models/'", "root.uri: '/srv/models/' has no scheme"),
        ("uri = 'http://169.254.169.254/'", "link-local, metadata, multicast or unspecified"),
        ("uri = 'file:///nowhere/'", "root.uri: /nowhere cannot be read"),
        ("uri = 's3://b/'\naccess_key_id = 'x'", "root.access_key_id: needs secret_access_key_file"),
        ("uri = 'gs://b/'\nregion = 'x'", "root.region: means nothing to a gs root"),
        ("uri = 'https://h/'\nendpoint = 'https://x'", "root.endpoint: means nothing to a https root"),
        (
            "uri = 's3://b/'\nskip_signature = 'x'",
            "root.skip_signature: expected true or false, found a string",
        ),
        ("uri = 's3://b/'\nsettings = { a = [] }", "root.settings.a: expected a string"),
        ("uri = 's3://b/'\nsettings = 3", "root.settings: expected a table"),
        (
            "uri = 's3://b/'\n[[root]]\nname = 'a'\nuri = 's3://c/'",
            "root.name: 'a' is also the name of the root at",
        ),
        (
            "uri = 's3://b'\n[[root]]\nname = 'b'\nuri = 's3://b/'",
            "root.uri: 's3://b/' is also the URI of root 'a'",
        ),
    ] {
        let message = root(text).unwrap_err();
        assert!(message.contains(what), "{text}: {message}");
    }
    let text = format!(
        "uri = 's3://b/m/'\nendpoint = 'http://h:9000'\nallow_http = true\nregion = 'r'\naccess_key_id = 'id'\n\
         secret_access_key_file = '{secret}'\nsettings = {{ AWS_SESSION_TOKEN = 'canary', timeout = 3, b = true }}\n"
    );
    let roots = root(&text).unwrap();
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let expected = [
        ("AWS_ENDPOINT_URL", "http://h:9000"),
        ("AWS_REGION", "r"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("allow_http", "true"),
        ("AWS_SESSION_TOKEN", "canary"),
        ("b", "true"),
        ("timeout", "3"),
    ];
    assert_eq!(roots[0].store_config(), owned(&expected));
}

#[test]
fn what_holds_is_shown_with_its_source_and_without_secrets() {
    let folder = folder(&[("secret", "hunter2\n")]);
    let text = format!(
        "[limits]\nmax_tensor_bytes = '2GiB'\n[[root]]\nname = 'm'\nuri = 's3://b/'\naccess_key_id = 'id'\n\
         secret_access_key_file = '{}'\nsettings = {{ AWS_SESSION_TOKEN = 'canary' }}\n",
        folder.path().join("secret").display()
    );
    let mut all = Overrides::new();
    all.flag("coordinator.listen", "127.0.0.1:1", "--listen");
    all.command_default("coordinator.http_listen", "off", "serve");
    let config = load(&text, &all).unwrap();
    let shown = config.resolved_toml();
    for line in [
        "listen = \"127.0.0.1:1\"  # flag --listen",
        "http_listen = \"off\"  # default of serve",
        "# tokens_file is not set",
        "max_streams = 128  # default",
        "no_worker_timeout = \"1day\"  # default",
        "settings = { \"AWS_SESSION_TOKEN\" = \"***\" }  #",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("max_tensor_bytes = \"2GiB\"  # ") && line.ends_with("s.toml:2"))
    );
    let everything = format!("{shown}{config:?}");
    assert!(!everything.contains("hunter2") && !everything.contains("canary"), "{everything}");
    // What is shown is a configuration again.
    let again = load(&shown, &Overrides::new()).unwrap();
    assert_eq!(bare(&again.values), bare(&config.values));
    assert_eq!(again.roots[0].uri, config.roots[0].uri);
}

#[test]
fn warnings_are_not_mistakes() {
    let folder = folder(&[("pem", "x")]);
    let pem = folder.path().join("pem").display().to_string();
    let text = format!("[coordinator]\nlisten = '0.0.0.0:1'\ntokens_file = '{pem}'\n");
    let config = load(&text, &Overrides::new()).unwrap();
    let warnings = config.warnings(Process::Coordinator);
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].ends_with(
        "coordinator.listen: is not loopback, and there is no TLS: tokens cross the network in clear"
    ));
    assert_eq!(warnings[1], "default: root: there is none: jobs can name uploaded models only");
    assert!(config.warnings(Process::Worker).is_empty());
}

#[test]
fn damaged_files_give_errors_and_never_a_panic() {
    let sample = fs::read(SAMPLE).unwrap();
    let folder = folder(&[]);
    let file = folder.path().join("s.toml");
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut refused = 0;
    for _ in 0..300 {
        let mut text = sample.clone();
        for _ in 0..=random(4) {
            let at = random(text.len());
            match random(3) {
                0 => text[at] = b"\"'[]{}=.#\n\\\0-9"[random(14)],
                1 => drop(text.drain(at..(at + random(40)).min(text.len()))),
                _ => text.splice(at..at, b"[[root]]\n".iter().copied()).for_each(drop),
            }
        }
        fs::write(&file, &text).unwrap();
        refused += usize::from(Config::load(Some(&file), &Overrides::new()).is_err());
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_file_of_another_kind_is_not_listed_line_by_line() {
    let text: String = (0..5_000).map(|i| format!("key{i} = 1\n")).collect();
    let found = mistakes(Process::Neither, &text, &Overrides::new());
    assert_eq!(found.len(), 201);
    assert_eq!(found[200], "and 4800 more");
}
