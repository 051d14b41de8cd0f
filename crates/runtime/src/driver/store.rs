//! Questions of the driver to the store, asked on threads that may block.

use std::sync::Arc;

use cutwater_coordinator::inspect::is_whole;
use cutwater_coordinator::{CreateOutcome, Token};
use cutwater_storage::{CreateError, Listed, ObjectName, read_checked};

use super::{Event, Shell};
use crate::upload::chain;

impl Shell {
    pub(super) fn create(&self, token: Token, name: String, bytes: Vec<u8>) {
        let store = Arc::clone(&self.store);
        self.block(move || {
            let outcome = match object(&name) {
                Err(reason) => CreateOutcome::Failed(reason),
                Ok(name) => match store.create(&name, &bytes) {
                    Ok(()) => CreateOutcome::Created,
                    Err(CreateError::Exists) => CreateOutcome::Exists,
                    Err(CreateError::Failed { source }) => CreateOutcome::Failed(chain(&source)),
                    Err(CreateError::Unknown { source }) => CreateOutcome::Unknown(chain(&source)),
                },
            };
            Event::Created(token, outcome)
        });
    }

    pub(super) fn read(&self, token: Token, name: String, limit: u64) {
        let store = Arc::clone(&self.store);
        self.block(move || {
            let read = object(&name).and_then(|name| {
                let read = read_checked(store.as_ref(), &name, limit, |bytes| is_whole(name.as_str(), bytes));
                read.map_err(|error| chain(&error))
            });
            Event::Read(token, read)
        });
    }

    pub(super) fn delete(&self, token: Token, names: Vec<String>) {
        let (store, local) = (Arc::clone(&self.store), self.local.clone());
        self.block(move || {
            local.iter().for_each(|local| local.delete(&names));
            let delete =
                |name: &String| object(name).and_then(|name| store.delete(&name).map_err(|error| chain(&error)));
            Event::Deleted(token, names.iter().try_for_each(delete))
        });
    }

    pub(super) fn list(&self, token: Token, prefix: String) {
        let store = Arc::clone(&self.store);
        self.block(move || {
            let listed = store.list(&prefix).map_err(|error| chain(&error));
            let names = |listed: Vec<Listed>| listed.iter().map(|entry| entry.name.to_string()).collect();
            Event::Listed(token, listed.map(names))
        });
    }
}

fn object(name: &str) -> Result<ObjectName, String> {
    ObjectName::parse(name).map_err(|error| error.to_string())
}
