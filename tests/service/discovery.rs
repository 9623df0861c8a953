//! What a client finds without knowing anything: health and reflection.

use super::Cluster;
use futures_util::stream;
use std::collections::BTreeSet;
use tempfile::TempDir;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SERVICES: [&str; 5] = [
    "spectrald.v1.AnalysisService",
    "spectrald.v1.UploadService",
    "spectrald.v1.WorkerService",
    "spectrald.v1.SystemService",
    "spectrald.worker.v1.TaskService",
];

#[test]
fn the_health_of_each_service_is_told() {
    let cluster = Cluster::start(TempDir::new().unwrap(), "");
    let mut client = HealthClient::new(cluster.channel());
    for service in SERVICES.into_iter().chain([""]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = cluster.wait(client.check(request)).unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest { service: "spectrald.v1.Nothing".to_owned() };
    assert_eq!(cluster.wait(client.check(request)).unwrap_err().code(), Code::NotFound);
}

/// Both versions of reflection have the same messages under different names.
macro_rules! listed {
    ($cluster:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new($cluster.channel());
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let answer = $cluster.wait(async {
            let stream = client.server_reflection_info(stream::iter([request])).await;
            stream.unwrap().into_inner().message().await.unwrap().unwrap()
        });
        match answer.message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|service| service.name).collect::<BTreeSet<String>>()
            }
            other => panic!("{other:?}"),
        }
    }};
}

#[test]
fn reflection_lists_every_service() {
    let cluster = Cluster::start(TempDir::new().unwrap(), "");
    for (version, found) in [("v1", listed!(cluster, v1)), ("v1alpha", listed!(cluster, v1alpha))] {
        for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
            assert!(found.contains(service), "{version}: {service} is not among {found:?}");
        }
    }
}
