//! A gRPC service.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};

use crate::tasks::busy;

/// The service and the method, as `TaskNameLayer::grpc` names it.
pub const METHOD: &str = "opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// The CPU time that each request uses.
pub const TIME: Duration = Duration::from_millis(20);

/// Accepts every request after some work.
pub struct Accepts;

pub fn server() -> MetricsServiceServer<Accepts> {
    MetricsServiceServer::new(Accepts)
}

#[tonic::async_trait]
impl MetricsService for Accepts {
    async fn export(
        &self,
        _: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        busy(TIME);
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}
