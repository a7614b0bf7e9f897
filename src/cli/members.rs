//! `peers untrack` and `peers replace`: what an operator decides about members, on one node for the whole site.

use super::api::{Api, encode};
use super::{DONE, say};
use crate::Error;
use crate::report::Replacement;
use hyper::Method;
use hyper::body::Bytes;
use std::format;
use std::string::String;

/// Retires a member.
pub(super) async fn untrack(api: &Api, node: &str, json: bool) -> Result<u8, Error> {
    api.send(Method::DELETE, &path(node)?, None, Bytes::new()).await?.ok()?;
    let text = format!("{node} is no longer tracked, on the whole site; one that comes back is a member again\n");
    say(if json { "{}\n" } else { &text })?;
    Ok(DONE)
}

/// Admits the device that was refused under a known name.
pub(super) async fn replace(api: &Api, node: &str, json: bool) -> Result<u8, Error> {
    let reply = api.send(Method::POST, &format!("{}/replace", path(node)?), None, Bytes::new()).await?.ok()?;
    if json {
        say(&format!("{}\n", String::from_utf8_lossy(&reply.body)))?;
        return Ok(DONE);
    }
    let done: Replacement = reply.json()?;
    say(&format!("{} is the device {} at {} now, on the whole site\n", done.node_id, done.device, done.address))?;
    Ok(DONE)
}

fn path(node: &str) -> Result<String, Error> {
    if node.is_empty() {
        return Err(Error::bad_request("the name of the node is empty"));
    }
    Ok(format!("/v1/peers/{}", encode(node)))
}
