use std::sync::Mutex;

use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

/// What is logged by `work` in this look.
fn logged(format: Format, work: impl FnOnce()) -> String {
    let out: Arc<Mutex<Vec<u8>>> = Arc::default();
    let copy = Arc::clone(&out);
    let sink: Sink = Arc::new(move |line| copy.lock().unwrap().extend_from_slice(line));
    let subscriber = tracing_subscriber::registry().with(Lines::new(format, "worker", sink));
    tracing::subscriber::with_default(subscriber, work);
    let bytes = out.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// Splits lines, moves the cursor (C0 and C1), clears the screen, turns direction, ends a JSON string.
const HOSTILE: &str = "a\nb\r\u{1b}[2J\u{9b}2J\u{7f}\u{2028}\u{202e}\"}\\ é";

#[test]
fn a_json_line_is_one_object() {
    let text = logged(Format::Json, || {
        let span = tracing::info_span!("task", id = 7, tensor = HOSTILE, later = tracing::field::Empty);
        span.record("later", 1.5);
        let _entered = span.enter();
        let nan = f64::NAN;
        tracing::warn!(tensor = HOSTILE, n = -1_i64, ok = true, nan, error = %crate::Error::malformed("x\ny"), "m\n{}", 1);
    });
    assert_eq!(text.matches('\n').count(), 1);
    assert!(!text.trim_end().chars().any(char::is_control));
    assert!(!text.contains('\u{202e}') && !text.contains('\u{2028}'));
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["service"], "worker");
    assert_eq!(line["message"], "m\n1");
    assert_eq!(line["target"], module_path!());
    assert_eq!(line["fields"]["tensor"], HOSTILE);
    assert_eq!(line["fields"]["n"], -1);
    assert_eq!(line["fields"]["ok"], true);
    assert_eq!(line["fields"]["nan"], "NaN");
    assert_eq!(line["fields"]["error"], "x\\ny");
    assert_eq!(line["spans"][0]["name"], "task");
    assert_eq!(line["spans"][0]["id"], 7);
    assert_eq!(line["spans"][0]["later"], 1.5);
    assert_eq!(line["spans"][0]["tensor"], HOSTILE);
    assert!(line.get("trace_id").is_none(), "there is no trace here");
    let timestamp = line["timestamp"].as_str().unwrap();
    assert!(timestamp.starts_with("20") && timestamp.ends_with('Z'), "{timestamp}");
}

#[test]
fn a_text_line_is_one_line() {
    let text = logged(Format::Text, || {
        let _span = tracing::info_span!("task", otel.kind = "server", id = 7).entered();
        tracing::info!(tensor = HOSTILE, n = 2, "m{HOSTILE}");
    });
    let hostile = "a\\nb\\r\\u{1b}[2J\\u{9b}2J\\u{7f}\\u{2028}\\u{202e}\"}\\ é";
    let (_, rest) = text.split_once(' ').unwrap();
    assert_eq!(rest, format!(" INFO task{{id=7}}: m{hostile} tensor={hostile} n=2\n"));
}

#[test]
fn long_values_are_cut() {
    struct Endless;
    impl fmt::Debug for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("é")?;
            }
        }
    }
    let long = "x".repeat(100_000);
    let text =
        logged(Format::Json, || tracing::info!(long, exact = "y".repeat(1024), endless = ?Endless, "{long}"));
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["fields"]["long"], format!("{}…", "x".repeat(1024)));
    assert_eq!(line["fields"]["exact"], "y".repeat(1024));
    assert_eq!(line["fields"]["endless"], format!("{}…", "é".repeat(512)));
    assert_eq!(line["message"], format!("{}…", "x".repeat(4096)));
}
