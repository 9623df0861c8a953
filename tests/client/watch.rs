//! A watch over streams that end, connections that are cut, and coordinators that go away.

use super::{patience, report, started, target, with_client};
use crate::support::coordinator::{Coordinator, ID, Script};
use spectrald::ErrorKind;
use spectrald::rpc::client::{Patience, Watch, Watched};
use spectrald::rpc::status::status;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::Status;

/// Layers by name and how often the connection was lost, from now to the end.
async fn rest(watch: &mut Watch) -> (Vec<String>, usize) {
    let (mut layers, mut lost) = (Vec::new(), 0);
    while let Some(watched) = watch.next().await.unwrap() {
        match watched {
            Watched::Progress(message) => layers.extend(message.layers.into_iter().map(|layer| layer.name)),
            Watched::Lost(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                lost += 1;
            }
        }
    }
    (layers, lost)
}

fn names() -> Vec<String> {
    report().layers.iter().map(|row| row.name.clone()).collect()
}

#[test]
fn every_event_comes_once_though_streams_end_early() {
    let (script, coordinator) = started();
    script.ends_after.store(10, Ordering::SeqCst);
    with_client(&target(&coordinator), patience(), async |client| {
        let (layers, lost) = rest(&mut client.watch(ID, 0)).await;
        assert_eq!(layers, names());
        let streams = script.events().div_ceil(10);
        assert_eq!(lost, streams - 1);
        let asked: Vec<String> = (0..streams).map(|n| format!("watch after {}", 10 * n)).collect();
        assert_eq!(script.take_calls(), asked);
        // from the middle on
        script.ends_after.store(usize::MAX, Ordering::SeqCst);
        let (layers, lost) = rest(&mut client.watch(ID, 40)).await;
        assert_eq!((layers.as_slice(), lost), (&names()[40..], 0));
    });
}

#[test]
fn it_goes_on_where_it_was_when_the_coordinator_comes_back() {
    let (script, coordinator) = started();
    let address = coordinator.address();
    script.happened.send_replace(1);
    with_client(&target(&coordinator), patience(), async |client| {
        let mut watch = client.watch(ID, 0);
        let first = watch.next().await.unwrap().unwrap();
        assert!(matches!(&first, Watched::Progress(message) if message.sequence == 1), "{first:?}");
        drop(coordinator);
        let lost = watch.next().await.unwrap().unwrap();
        assert!(matches!(lost, Watched::Lost(_)), "{lost:?}");
        script.happened.send_replace(script.events());
        let _again = Coordinator::start_again(address, &script);
        let (layers, lost) = rest(&mut watch).await;
        assert_eq!((layers.as_slice(), lost), (&names()[1..], 0));
        assert!(script.take_calls().iter().skip(1).all(|call| call == "watch after 1"));
    });
}

#[test]
fn it_gives_up_on_a_coordinator_that_stays_away() {
    let (script, coordinator) = started();
    script.happened.send_replace(1);
    let addr = format!("http://{}", coordinator.address());
    let hasty = Patience { unreachable: Duration::from_millis(200), ..patience() };
    with_client(&target(&coordinator), hasty, async |client| {
        let mut watch = client.watch(ID, 0);
        watch.next().await.unwrap();
        drop(coordinator);
        assert!(matches!(watch.next().await.unwrap(), Some(Watched::Lost(_))));
        let error = watch.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.starts_with(&format!("{addr}: the coordinator has not answered for 0.2 s: ")), "{text}");
    });
}

#[test]
fn a_stream_that_falls_silent_is_sought_again() {
    let (script, coordinator) = started();
    script.happened.send_replace(1);
    let hasty = Patience { silence: Duration::from_millis(100), ..patience() };
    with_client(&target(&coordinator), hasty, async |client| {
        let mut watch = client.watch(ID, 0);
        watch.next().await.unwrap();
        let lost = watch.next().await.unwrap().unwrap();
        assert!(
            matches!(&lost, Watched::Lost(error) if error.kind() == ErrorKind::DeadlineExceeded),
            "{lost:?}"
        );
        script.happened.send_replace(script.events());
        let mut seen = 1;
        while let Some(watched) = watch.next().await.unwrap() {
            if let Watched::Progress(message) = watched {
                seen += message.layers.len();
            }
        }
        assert_eq!(seen, names().len());
    });
}

#[test]
fn what_the_coordinator_says_of_the_request_is_final() {
    let (script, coordinator) = started();
    with_client(&target(&coordinator), patience(), async |client| {
        let error = client.watch("a9", 0).next().await.unwrap_err();
        assert_eq!(error.to_string(), "field 'id': no analysis 'a9'");
        for refusal in [
            Status::unauthenticated("no token"),
            status(&spectrald::Error::new(ErrorKind::Internal, "a fault")),
        ] {
            script.fail(1, refusal.clone());
            let error = client.watch(ID, 0).next().await.unwrap_err();
            assert_eq!(error.message(), refusal.message());
        }
        assert_eq!(script.take_calls().len(), 3);
    });
}

/// Only so that a script with nothing to tell is not mistaken for one that works.
#[test]
fn the_script_tells_every_row() {
    assert_eq!(Script::of(report()).events(), names().len() + 1);
}
