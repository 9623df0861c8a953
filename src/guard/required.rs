//! Which role each method needs. A method that is not listed is refused.

use super::role::Role;

/// What a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// Nothing: anybody may call it, with or without credentials.
    Anyone,
    /// This role.
    Role(Role),
    /// The method is not listed: nobody may call it.
    Unknown,
}

use Required::{Anyone, Role as Of};

/// Every method, `(service, method, what it needs)`.
pub const METHODS: &[(&str, &str, Required)] = &[
    ("spectrald.v1.AnalysisService", "CreateAnalysis", Of(Role::Submit)),
    ("spectrald.v1.AnalysisService", "GetAnalysis", Of(Role::Read)),
    ("spectrald.v1.AnalysisService", "ListAnalyses", Of(Role::Read)),
    ("spectrald.v1.AnalysisService", "WatchAnalysis", Of(Role::Read)),
    ("spectrald.v1.AnalysisService", "CancelAnalysis", Of(Role::Submit)),
    ("spectrald.v1.AnalysisService", "ListLayerResults", Of(Role::Read)),
    ("spectrald.v1.AnalysisService", "StreamLayerResults", Of(Role::Read)),
    ("spectrald.v1.AnalysisService", "StreamSpectrum", Of(Role::Read)),
    ("spectrald.v1.AnalysisService", "DescribeModel", Of(Role::Submit)),
    ("spectrald.v1.UploadService", "BeginUpload", Of(Role::Submit)),
    ("spectrald.v1.UploadService", "UploadChunk", Of(Role::Submit)),
    ("spectrald.v1.UploadService", "FinishUpload", Of(Role::Submit)),
    ("spectrald.v1.UploadService", "AbortUpload", Of(Role::Submit)),
    ("spectrald.v1.WorkerService", "ListWorkers", Of(Role::Read)),
    ("spectrald.v1.WorkerService", "DrainWorker", Of(Role::Admin)),
    ("spectrald.v1.SystemService", "GetStatus", Of(Role::Read)),
    // The worker protocol is one role's as a whole.
    ("spectrald.worker.v1.TaskService", "*", Of(Role::Worker)),
    // A probe has no credentials.
    ("grpc.health.v1.Health", "Check", Anyone),
    ("grpc.health.v1.Health", "List", Anyone),
    ("grpc.health.v1.Health", "Watch", Anyone),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", Of(Role::Read)),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", Of(Role::Read)),
];

/// What the method of this path (`/package.Service/Method`) needs.
pub fn required(path: &str) -> Required {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return Required::Unknown;
    };
    let is_word = !method.is_empty() && method.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    let listed =
        METHODS.iter().find(|(of, name, _)| *of == service && (*name == method || (*name == "*" && is_word)));
    listed.map_or(Required::Unknown, |(_, _, needs)| *needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_is_not_listed_is_unknown() {
        assert_eq!(required("/spectrald.v1.AnalysisService/CreateAnalysis"), Of(Role::Submit));
        assert_eq!(required("/spectrald.worker.v1.TaskService/Report"), Of(Role::Worker));
        assert_eq!(required("/grpc.health.v1.Health/Check"), Anyone);
        for path in [
            "",
            "/",
            "*",
            "/spectrald.v1.AnalysisService/",
            "/spectrald.v1.AnalysisService/Nothing",
            "/spectrald.v1.AnalysisService/createanalysis",
            "/spectrald.v1.AnalysisService/GetAnalysis/",
            "//spectrald.v1.AnalysisService/GetAnalysis",
            "/spectrald.v1.Other/GetAnalysis",
            "/spectrald.worker.v1.TaskService/",
            "/spectrald.worker.v1.TaskService/a/b",
            "/spectrald.worker.v1.TaskService/%52eport",
            "/grpc.health.v1.Health/../spectrald.v1.WorkerService/DrainWorker",
        ] {
            assert_eq!(required(path), Required::Unknown, "{path}");
        }
    }
}
