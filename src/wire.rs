//! What workers that share nothing but a key-value store tell each other about a fetch: one of them makes it, all
//! use its outcome.
//!
//! The store is not trusted: other plugins may write to it. A record carries a MAC, keyed by the configuration,
//! over its name and content; whatever does not verify does not exist. A record that is put back in time is no
//! danger either: what is not newer than what a worker knows changes nothing.

use std::time::Duration;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::encoding::base64url_encode;
use crate::provider::{Fetch, FetchFailure, Reply};
use crate::time::Timestamp;

/// A lease outlives the fetch's timeout by this much, so that it ends first.
pub const LEASE_MARGIN: Duration = Duration::from_millis(500);

const TAG_BYTES: usize = 32;

/// Authenticates records among the workers of one configuration.
pub struct RecordKey {
    mac: Hmac<Sha256>,
    name: String,
}

impl RecordKey {
    /// Derives the key from all that only this plugin knows: its configuration document, and its client secret
    /// where it is not in there. A record is as hard to forge as these are to guess.
    #[must_use]
    pub fn derive(configuration: &[u8], secret: &str) -> Option<Self> {
        let mut key = Sha256::new();
        for part in [b"stepgate shared record".as_slice(), configuration, secret.as_bytes()] {
            key.update((part.len() as u64).to_be_bytes());
            key.update(part);
        }
        let mac = Hmac::<Sha256>::new_from_slice(&key.finalize()).ok()?;
        let mut name = mac.clone();
        name.update(b"name");
        let name = base64url_encode(name.finalize().into_bytes().get(..12)?);
        Some(Self { mac, name })
    }

    /// The store's key for a fetch: of this configuration, endpoint and URL.
    #[must_use]
    pub fn record_name(&self, fetch: &Fetch) -> String {
        let url = Sha256::digest(fetch.url.as_bytes());
        format!(
            "stepgate/{}/{}/{}",
            self.name,
            fetch.endpoint.name(),
            base64url_encode(url.get(..12).unwrap_or_default())
        )
    }

    fn keyed(&self, name: &str, content: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        for part in [name.as_bytes(), content] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

/// The state of the fetches of one URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The last good document and when it came, in milliseconds.
    good: Option<(u64, String)>,
    /// When an attempt failed last, in milliseconds.
    failed_at: Option<u64>,
    /// When a fetch for an unknown key ID ended last, in milliseconds.
    unknown_kid_at: Option<u64>,
    /// Until when somebody is fetching, in milliseconds.
    leased_until: u64,
}

/// What a worker that wants a fetch does.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// There is an outcome already.
    Answer(Reply),
    /// Somebody is fetching.
    Wait,
    /// Fetch, after this record was stored.
    Lead(Record),
}

impl Record {
    /// Reads a record from the store.
    #[must_use]
    pub fn open(key: &RecordKey, name: &str, bytes: &[u8]) -> Option<Self> {
        let (tag, content) = bytes.split_at_checked(TAG_BYTES)?;
        key.keyed(name, content).verify_slice(tag).ok()?;
        serde_json::from_slice(content).ok()
    }

    /// Writes a record for the store.
    #[must_use]
    pub fn seal(&self, key: &RecordKey, name: &str) -> Vec<u8> {
        let content = serde_json::to_vec(self).unwrap_or_default();
        let mut sealed = key.keyed(name, &content).finalize().into_bytes().to_vec();
        sealed.extend(content);
        sealed
    }

    /// Decides what to do about a fetch. Moments that lie in the future, after the clock was set back, count for
    /// nothing.
    #[must_use]
    pub fn plan(mut self, fetch: &Fetch, now: Timestamp) -> Plan {
        let past = |at: u64| Some(Timestamp::from_millis(at)).filter(|at| *at <= now);
        let unknown_kid_at = self.unknown_kid_at.and_then(past);
        let answer = |at: Timestamp, result| Plan::Answer(Reply { at, unknown_kid_at, result });
        if let Some((at, body)) = &self.good
            && let Some(at) = past(*at).filter(|at| *at > fetch.newer_than)
        {
            return answer(at, Ok(body.as_bytes().into()));
        }
        if let Some(at) = self.failed_at.and_then(past).filter(|at| *at > fetch.newer_than) {
            return answer(at, Err(FetchFailure::Elsewhere));
        }
        let longest = now.plus(fetch.timeout).plus(LEASE_MARGIN);
        let leased_until = Timestamp::from_millis(self.leased_until);
        if now < leased_until && leased_until <= longest {
            return Plan::Wait;
        }
        self.leased_until = longest.as_millis();
        Plan::Lead(self)
    }

    /// The record after the leader's fetch. A document that was no good leaves the last good one in place.
    #[must_use]
    pub fn after(mut self, reply: &Reply, useful: bool) -> Self {
        self.leased_until = 0;
        self.unknown_kid_at = self.unknown_kid_at.max(reply.unknown_kid_at.map(Timestamp::as_millis));
        let body = reply.result.as_ref().ok().and_then(|body| std::str::from_utf8(body).ok());
        match body.filter(|_| useful) {
            Some(body) => {
                self.good = Some((reply.at.as_millis(), body.to_owned()));
                self.failed_at = None;
            }
            None => self.failed_at = Some(reply.at.as_millis()),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Endpoint;

    fn fetch(newer_than: u64) -> Fetch {
        Fetch {
            endpoint: Endpoint::Keys,
            url: "https://idp/keys".into(),
            form: None,
            timeout: Duration::from_secs(5),
            max_bytes: 1000,
            newer_than: Timestamp::from_secs(newer_than),
            for_unknown_kid: false,
        }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn lead(record: Record, newer_than: u64, now: u64) -> Record {
        match record.plan(&fetch(newer_than), at(now)) {
            Plan::Lead(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn good(secs: u64) -> Reply {
        Reply { at: at(secs), unknown_kid_at: None, result: Ok(b"{}".as_slice().into()) }
    }

    #[test]
    fn one_worker_leads_and_the_others_wait_for_its_outcome() {
        let leased = lead(Record::default(), 0, 100);
        assert_eq!(leased.clone().plan(&fetch(0), at(101)), Plan::Wait);
        let done = leased.after(&good(102), true);
        assert_eq!(done.clone().plan(&fetch(0), at(103)), Plan::Answer(good(102)));
        lead(done, 102, 700);
    }

    #[test]
    fn a_lease_ends_by_itself() {
        let leased = lead(Record::default(), 0, 100);
        assert_eq!(leased.clone().plan(&fetch(0), at(105)), Plan::Wait);
        assert!(matches!(leased.clone().plan(&fetch(0), Timestamp::from_millis(105_499)), Plan::Wait));
        assert!(matches!(leased.plan(&fetch(0), Timestamp::from_millis(105_500)), Plan::Lead(_)));
    }

    #[test]
    fn a_record_has_a_name_of_its_own() {
        let key = RecordKey::derive(b"{}", "").unwrap();
        let other_endpoint = Fetch { endpoint: Endpoint::Metadata, ..fetch(0) };
        let other_url = Fetch { url: "https://idp/other".into(), ..fetch(0) };
        let other_key = RecordKey::derive(b"{ }", "").unwrap();
        let name = key.record_name(&fetch(0));
        assert!(name.starts_with("stepgate/"), "what else is in the store has other names");
        assert_eq!(key.record_name(&fetch(7)), name);
        for other in [key.record_name(&other_endpoint), key.record_name(&other_url), other_key.record_name(&fetch(0))] {
            assert_ne!(other, name);
        }
    }

    #[test]
    fn a_failure_keeps_the_last_good_document_and_is_told_once() {
        let done = lead(Record::default(), 0, 100).after(&good(101), true);
        let failed = Reply { result: Err(FetchFailure::Timeout), ..good(701) };
        let record = lead(done, 101, 700).after(&failed, false);
        assert_eq!(record.clone().plan(&fetch(0), at(702)), Plan::Answer(good(101)), "a newcomer gets the good one");
        let told = Reply { result: Err(FetchFailure::Elsewhere), ..good(701) };
        assert_eq!(record.clone().plan(&fetch(101), at(702)), Plan::Answer(told));
        lead(record, 701, 702);
    }

    #[test]
    fn a_useless_document_is_a_failure() {
        let record = lead(Record::default(), 0, 100).after(&good(101), false);
        let told = Reply { result: Err(FetchFailure::Elsewhere), ..good(101) };
        assert_eq!(record.plan(&fetch(0), at(102)), Plan::Answer(told));
    }

    #[test]
    fn the_future_counts_for_nothing() {
        let record = Record {
            leased_until: u64::MAX,
            failed_at: Some(u64::MAX),
            good: Some((u64::MAX, "{}".into())),
            unknown_kid_at: None,
        };
        lead(record, 0, 100);
    }

    #[test]
    fn only_the_same_configuration_and_name_open_a_record() {
        let key = RecordKey::derive(b"{}", "").unwrap();
        let name = key.record_name(&fetch(0));
        let record = Record::default().after(&good(1), true);
        let sealed = record.seal(&key, &name);
        assert_eq!(Record::open(&key, &name, &sealed), Some(record));
        assert_eq!(Record::open(&key, "other", &sealed), None);
        assert_eq!(Record::open(&RecordKey::derive(b"{ }", "").unwrap(), &name, &sealed), None);
        assert_eq!(Record::open(&RecordKey::derive(b"{}", "s").unwrap(), &name, &sealed), None);
        for position in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[position] ^= 1;
            assert_eq!(Record::open(&key, &name, &forged), None);
        }
        assert_eq!(Record::open(&key, &name, &sealed[..TAG_BYTES - 1]), None);
    }
}
