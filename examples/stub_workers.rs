//! Workers that compute nothing, for scripts/bench-coordinator: how fast a coordinator alone leases, collects and keeps.
//!
//! usage: stub_workers ADDR WORKERS MODEL
//!
//! Asks for an analysis of MODEL, answers every lease with made-up rows of ordinary size, and prints the rate of results
//! that were acknowledged (so: durable), with the times that lists and single views of the analysis took meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a measuring program ends where something is wrong"
)]

use spectrald::analysis::ALGORITHM_VERSION;
use spectrald::rpc::proto::v1::analysis_service_client::AnalysisServiceClient;
use spectrald::rpc::proto::v1::{
    AnalysisState, CreateAnalysisRequest, GetAnalysisRequest, LayerResult, LayerStatus, ListAnalysesRequest,
    ListLayerResultsRequest,
};
use spectrald::rpc::proto::worker::v1::task_service_client::TaskServiceClient;
use spectrald::rpc::proto::worker::v1::{Lease, ReportRequest, Running, UnitResult, unit_result::Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// Leases that a stub holds at a time.
const CORES: u32 = 4;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, addr, workers, model] = arguments.as_slice() else {
        panic!("usage: stub_workers ADDR WORKERS MODEL")
    };
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap().tcp_nodelay(true);
    let mut client = AnalysisServiceClient::new(endpoint.connect().await.unwrap());
    let acknowledged = Arc::new(AtomicU64::new(0));
    let request = CreateAnalysisRequest { model: model.clone(), ..Default::default() };
    let planned = Instant::now();
    let analysis = client.create_analysis(request).await.unwrap().into_inner().analysis.unwrap();
    println!("planned in {:.2} s: {} layers", planned.elapsed().as_secs_f64(), analysis.plan.unwrap().layers);
    let started = Instant::now();
    for number in 0..workers.parse::<u64>().unwrap() {
        let channel = endpoint.connect().await.unwrap();
        tokio::spawn(work(channel, number, Arc::clone(&acknowledged)));
    }
    let times = watch(&mut client, &analysis.id).await;
    let seconds = started.elapsed().as_secs_f64();
    let results = acknowledged.load(Ordering::Relaxed);
    println!("{results} results in {seconds:.2} s: {:.0} a second", results as f64 / seconds);
    for (what, mut times) in times {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!("{what}: median {:.1} ms, 99 % {:.1} ms of {}", at(0.5), at(0.99), times.len());
    }
}

/// Until the analysis has ended: how long each kind of question took.
async fn watch(client: &mut AnalysisServiceClient<Channel>, id: &str) -> [(&'static str, Vec<Duration>); 3] {
    let mut times =
        [("ListAnalyses", Vec::new()), ("GetAnalysis", Vec::new()), ("ListLayerResults", Vec::new())];
    loop {
        let asked = Instant::now();
        client.list_analyses(ListAnalysesRequest::default()).await.unwrap();
        times[0].1.push(asked.elapsed());
        let asked = Instant::now();
        let request = GetAnalysisRequest { id: id.to_owned() };
        let analysis = client.get_analysis(request).await.unwrap().into_inner().analysis.unwrap();
        times[1].1.push(asked.elapsed());
        let asked = Instant::now();
        let request = ListLayerResultsRequest { id: id.to_owned(), ..Default::default() };
        client.list_layer_results(request).await.unwrap();
        times[2].1.push(asked.elapsed());
        match analysis.state() {
            AnalysisState::Succeeded => return times,
            AnalysisState::Failed | AnalysisState::Cancelled => panic!("{:?}", analysis.failure),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn work(channel: Channel, number: u64, acknowledged: Arc<AtomicU64>) {
    let mut tasks = TaskServiceClient::new(channel);
    let mut seen = 0;
    let mut results: Vec<UnitResult> = Vec::new();
    loop {
        let kept = results.iter().map(|result| result.attempt).collect::<std::collections::BTreeSet<_>>();
        let running = kept.iter().map(|attempt| Running {
            attempt: *attempt,
            analysis: results[0].analysis.clone(),
            kept: results.iter().filter(|r| r.attempt == *attempt).map(|r| r.unit).collect(),
            ..Running::default()
        });
        let request = ReportRequest {
            protocol: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            algorithm_version: ALGORITHM_VERSION,
            worker: format!("stub-{number}"),
            session: 1,
            seen,
            cores: CORES,
            free_cores: CORES - u32::try_from(kept.len()).unwrap(),
            memory_bytes: 1 << 40,
            free_memory_bytes: 1 << 40,
            running: running.collect(),
            results: results.clone(),
            ..ReportRequest::default()
        };
        let answer = tasks.report(request).await.unwrap().into_inner();
        seen = answer.sequence.max(seen);
        acknowledged.fetch_add(answer.acknowledged.len() as u64, Ordering::Relaxed);
        results.retain(|r| {
            !answer.acknowledged.iter().any(|key| (key.attempt, key.unit) == (r.attempt, r.unit))
        });
        results.extend(answer.leases.iter().flat_map(rows));
    }
}

/// A row for each unit of a lease.
fn rows(lease: &Lease) -> Vec<UnitResult> {
    lease
        .units
        .iter()
        .map(|unit| UnitResult {
            analysis: lease.analysis.clone(),
            unit: unit.unit,
            attempt: lease.attempt,
            outcome: Some(Outcome::Row(row(&unit.name, unit.unit))),
            has_spectrum: false,
            seconds: 1e-3,
        })
        .collect()
}

fn row(name: &str, unit: u32) -> LayerResult {
    let some = |x: f64| Some(x + f64::from(unit) * 1e-9);
    LayerResult {
        name: name.to_owned(),
        longname: name.to_owned(),
        layer_id: Some(u64::from(unit) + 1),
        layer_type: Some("dense".to_owned()),
        n: Some(8),
        m: Some(8),
        q: Some(1.0),
        status: LayerStatus::Success.into(),
        has_esd: true,
        num_evals: Some(8),
        sv_max: some(1.1),
        sv_min: some(0.1),
        lambda_max: some(1.3),
        noise_floor: some(1e-15),
        method: Some("gram".to_owned()),
        alpha: some(2.5),
        xmin: some(0.5),
        xmax: some(1.3),
        d: some(0.1),
        sigma: some(0.4),
        norm: some(4.0),
        log_norm: some(0.6),
        spectral_norm: some(1.3),
        log_spectral_norm: some(0.1),
        alpha_weighted: some(0.3),
        log_alpha_norm: some(0.5),
        stable_rank: some(3.0),
        entropy: some(0.9),
        tensor: format!("{name}.weight"),
        dtype: "F32".to_owned(),
        shape: vec![8, 8],
        parameters: 64,
        digest: Some(blake3::hash(name.as_bytes()).to_hex().to_string()),
        ..LayerResult::default()
    }
}
