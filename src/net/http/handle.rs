//! One request: who asks, where it goes, and its answer.

use super::answer::{Answer, empty_response, json_response};
use super::body::BodyReader;
use super::budget::{Bodies, Budget, Share};
use super::changes::{self, Feeds};
use super::confirmed::Place;
use super::connection::Activity;
use super::route::{self, Route};
use super::serve::count;
use super::{HttpOptions, Service, bulk, documents, guard, problem, recovered};
use crate::error::{Error, RequestKind};
use crate::report::{HealthStatus, Metrics};
use async_channel::Receiver;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use smol::Timer;
use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::string::ToString;
use std::time::Duration;

/// Said to whoever finds no place.
pub(super) const ALL_BUSY: &str = "all connections of this node are busy: try again";

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub service: Rc<S>,
    pub options: HttpOptions,
    pub feeds: Rc<Feeds>,
    /// Requests that wait for peers.
    pub awaiting: Rc<Cell<usize>>,
    /// Closed when the requests under way are to end.
    pub stopped: Receiver<Infallible>,
}

impl<S> Shared<S> {
    /// The service's answer, or `TIMEOUT_ERROR` once it took too long: then the outcome is unknown.
    pub(super) async fn timed<T>(&self, what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.timed_for(self.options.request_timeout, what, work).await
    }

    /// The same with a limit of its own, for what takes long.
    async fn timed_for<T>(
        &self,
        limit: Duration,
        what: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = async {
            Timer::after(limit).await;
            Err(Error::Timeout { operation: what.to_string(), after_ms: limit.as_millis() as u64 })
        };
        smol::future::or(work, late).await
    }

    /// A share of the bytes that answers may take. Nothing was begun, so waiting too long is not a timeout.
    pub(super) async fn share(&self, bytes: usize) -> Result<Share, Error> {
        self.share_of(&self.options.bodies.answers, bytes).await
    }

    /// The same for the body of a request. A small one needs none and waits for nobody: the buffer of its connection holds
    /// it as it is.
    pub(super) async fn upload_share(&self, bytes: usize) -> Result<Option<Share>, Error> {
        const SMALL_BYTES: usize = 8 * 1024;
        match bytes <= SMALL_BYTES {
            true => Ok(None),
            false => self.share_of(&self.options.bodies.uploads, bytes).await.map(Some),
        }
    }

    /// The same for a bulk request, which may go on for ever: such requests never have all of it.
    pub(super) async fn bulk_share(&self, bytes: usize) -> Result<Share, Error> {
        let Bodies { bulk, uploads, .. } = &self.options.bodies;
        self.lane_share(bulk, uploads, bytes).await
    }

    /// The same for a page of many documents.
    pub(super) async fn page_share(&self, bytes: usize) -> Result<Share, Error> {
        let Bodies { pages, answers, .. } = &self.options.bodies;
        self.lane_share(pages, answers, bytes).await
    }

    /// A share of a part, and of the whole that it is part of.
    async fn lane_share(&self, part: &Rc<Budget>, whole: &Rc<Budget>, bytes: usize) -> Result<Share, Error> {
        let of_part = self.share_of(part, bytes).await?;
        Ok(self.share_of(whole, bytes.min(part.total())).await?.together_with(of_part))
    }

    async fn share_of(&self, budget: &Rc<Budget>, bytes: usize) -> Result<Share, Error> {
        let late = async {
            Timer::after(self.options.request_timeout).await;
            None
        };
        smol::future::or(budget.take(bytes), late)
            .await
            .ok_or_else(|| too_many("the bodies of other requests fill the memory set aside for them: try again"))
    }
}

pub(super) fn too_many(message: &str) -> Error {
    Error::Request { kind: RequestKind::TooManyRequests, message: message.to_string() }
}

/// Answers one request.
pub(super) async fn handle<S: Service>(
    shared: &Rc<Shared<S>>,
    request: Request<Incoming>,
    activity: &Rc<Activity>,
) -> Response<Answer> {
    let counters = &shared.options.counters;
    let site = guard::check_site(&request, &shared.options);
    let known = guard::is_known(&request, &shared.options);
    let (head, incoming) = request.into_parts();
    let mut body = BodyReader::new(incoming, activity.clone(), &shared.options);
    let answer = match site {
        Ok(()) => dispatch(shared, &head, &mut body, known, activity.is_crowded()).await,
        Err(error) => Err(error),
    };
    let mut response = answer.unwrap_or_else(|error| problem::response(&error));
    if activity.is_crowded() {
        // Its place is for the next one that asks how the node is: a body that was refused is not waited for.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    } else {
        activity.gives_way();
        body.drain(head.headers.contains_key(EXPECT)).await;
    }
    count(&counters.requests);
    if response.status().is_client_error() {
        count(&counters.client_errors);
    } else if response.status().is_server_error() {
        count(&counters.server_errors);
    }
    response
}

async fn dispatch<S: Service>(
    shared: &Rc<Shared<S>>,
    head: &Parts,
    body: &mut BodyReader,
    known: bool,
    crowded: bool,
) -> Result<Response<Answer>, Error> {
    let route = Route::parse(head.uri.path());
    let health = route.as_ref().is_ok_and(Route::is_health);
    if !health && shared.options.surface == super::Surface::HealthOnly {
        let message = "this address answers /health, /livez, /readyz and /metrics alone".to_string();
        return Err(Error::Request { kind: RequestKind::NoSuchRoute, message });
    }
    // Before the route's own errors: a stranger does not learn which routes there are.
    if !health && !known {
        return Err(guard::unauthorized());
    }
    if !health && crowded {
        return Err(too_many(ALL_BUSY));
    }
    let query = head.uri.query();
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    match route? {
        Route::Document { collection, key } => match head.method {
            Method::PUT => documents::put(shared, head, body, collection, key).await,
            Method::DELETE => documents::delete(shared, head, collection, key).await,
            _ if reads => documents::get(shared, head, &collection, &key).await,
            _ => Ok(problem::method_not_allowed("GET, HEAD, PUT, DELETE")),
        },
        Route::Documents { collection } => match head.method {
            Method::POST => bulk::post(shared, head, body, &collection).await,
            _ if reads => documents::list(shared, query, &collection).await,
            _ => Ok(problem::method_not_allowed("GET, HEAD, POST")),
        },
        Route::Peer { node_id } if head.method == Method::DELETE => {
            route::no_query(query)?;
            shared.timed("untrack the peer", shared.service.untrack(&node_id)).await?;
            Ok(empty_response(StatusCode::NO_CONTENT))
        }
        Route::ReplacePeer { node_id } if head.method == Method::POST => {
            route::no_query(query)?;
            let replaced = shared.timed("replace the peer", shared.service.replace(&node_id)).await?;
            Ok(json_response(StatusCode::OK, &replaced))
        }
        Route::Recovered { decision: None } if reads => recovered::list(shared, query).await,
        Route::Recovered { decision: None } => Ok(problem::method_not_allowed("GET, HEAD")),
        Route::Recovered { decision: Some(choice) } if head.method == Method::POST => {
            recovered::decide(shared, query, choice).await
        }
        Route::Recovered { decision: Some(_) } => Ok(problem::method_not_allowed("POST")),
        Route::Acknowledge if head.method == Method::POST => {
            route::no_query(query)?;
            shared.timed("acknowledge", shared.service.acknowledge()).await?;
            Ok(empty_response(StatusCode::NO_CONTENT))
        }
        Route::Backups if head.method == Method::POST => {
            route::no_query(query)?;
            let limit = shared.options.job_timeout;
            let made = shared.timed_for(limit, "make a backup", shared.service.backup()).await?;
            Ok(json_response(StatusCode::CREATED, &made))
        }
        Route::IntegrityCheck if head.method == Method::POST => {
            route::no_query(query)?;
            let limit = shared.options.job_timeout;
            let report = shared.timed_for(limit, "check the database", shared.service.check_integrity()).await?;
            Ok(json_response(StatusCode::OK, &report))
        }
        Route::Acknowledge | Route::Backups | Route::IntegrityCheck => Ok(problem::method_not_allowed("POST")),
        Route::Peer { .. } => Ok(problem::method_not_allowed("DELETE")),
        Route::ReplacePeer { .. } => Ok(problem::method_not_allowed("POST")),
        _ if !reads => Ok(problem::method_not_allowed("GET, HEAD")),
        Route::Collections => {
            route::no_query(query)?;
            documents::collections(shared).await
        }
        Route::Changes => changes::get(shared, head).await,
        Route::Status => {
            route::no_query(query)?;
            let status = shared.timed("read the status", async { Ok(shared.service.status().await) }).await?;
            Ok(json_response(StatusCode::OK, &status))
        }
        Route::Site => {
            let wait = route::site(query)?;
            let _place = Place::take(shared)?;
            Ok(json_response(StatusCode::OK, &shared.service.site(wait).await))
        }
        Route::Peers => {
            route::no_query(query)?;
            let peers = shared.timed("read the peers", async { Ok(shared.service.peers().await) }).await?;
            Ok(json_response(StatusCode::OK, &peers))
        }
        Route::Health => health_report(shared, known).await,
        Route::Live => Ok(live()),
        Route::Ready => ready(shared, query, known).await,
        Route::Metrics => metrics(shared, known).await,
    }
}

async fn health_report<S: Service>(shared: &Shared<S>, known: bool) -> Result<Response<Answer>, Error> {
    let report = shared.timed("read the health", async { Ok(shared.service.health().await) }).await?;
    let status = match report.status {
        HealthStatus::Healthy | HealthStatus::Degraded => StatusCode::OK,
        HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok(json_response(status, &if known { report } else { report.without_names() }))
}

async fn metrics<S: Service>(shared: &Shared<S>, known: bool) -> Result<Response<Answer>, Error> {
    let metrics = shared.timed("gather the metrics", async { Ok(shared.service.metrics(known).await) }).await?;
    let mut response = empty_response(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Metrics::MEDIA_TYPE));
    *response.body_mut() = Answer::small(metrics.to_string());
    Ok(response)
}

fn live() -> Response<Answer> {
    let mut response = empty_response(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Answer::small(json!({ "alive": true }).to_string());
    response
}

async fn ready<S: Service>(shared: &Shared<S>, query: Option<&str>, known: bool) -> Result<Response<Answer>, Error> {
    let readiness = match route::in_step(query)? {
        None => shared.service.readiness(),
        Some(wait) => {
            let _place = Place::take(shared)?;
            shared.service.in_step(wait).await
        }
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(json_response(status, &if known { readiness } else { readiness.without_names() }))
}
