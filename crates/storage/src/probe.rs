use std::process;

use crate::error::{CreateError, ProbeError, StoreError, StoreErrorKind};
use crate::name::ObjectName;
use crate::store::Store;
use crate::verify::read_checked;

/// How many names are tried: each taken one is a leftover of a probe that was killed, or a probe at work.
const NAMES: u32 = 64;

/// The body of [`Store::probe`], for any store that has the other methods.
pub(crate) fn probe<S: Store + ?Sized>(store: &S) -> Result<(), ProbeError> {
    let unusable = |action| move |source| ProbeError::Unusable { url: store.url(), action, source };
    let (name, bytes) = first_create(store).map_err(unusable("create"))?;
    let verdict = match store.create(&name, b"a second create") {
        Ok(()) => Err(ProbeError::CreatesTwice { url: store.url() }),
        Err(CreateError::Exists) => match read_checked(store, &name, 1024, |read| read == bytes) {
            Ok(Some(read)) if read == bytes => Ok(()),
            Ok(_) => Err(ProbeError::ReadsOther { url: store.url() }),
            Err(source) => Err(unusable("read")(source)),
        },
        Err(CreateError::Failed { source } | CreateError::Unknown { source }) => Err(unusable("create")(source)),
    };
    let deleted = store.delete(&name).map_err(unusable("delete"));
    verdict.and(deleted)
}

/// Creates a probe object under a free name. A taken name is left alone: deleting it could make the probe of another
/// process succeed at its second create, and so refuse a good store.
fn first_create<S: Store + ?Sized>(store: &S) -> Result<(ObjectName, Vec<u8>), StoreError> {
    let process = process::id();
    for n in 0..NAMES {
        let text = format!("cutwater-probe-{process}-{n}");
        let name = ObjectName::parse(&text).expect("letters, digits and dashes");
        match store.create(&name, text.as_bytes()) {
            Ok(()) => return Ok((name, text.into_bytes())),
            Err(CreateError::Exists) => {}
            Err(CreateError::Failed { source }) => return Err(source),
            Err(CreateError::Unknown { source }) => {
                // It may be there; if it can't be removed either, it is a few bytes.
                let _ = store.delete(&name);
                return Err(source);
            }
        }
    }
    let name = format!("cutwater-probe-{process}-*");
    Err(StoreError::new(StoreErrorKind::AlreadyExists, "create", store.url(), &name)
        .because("many probes were killed here: delete these files"))
}
