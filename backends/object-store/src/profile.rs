//! The files in which AWS's own tools keep credentials and settings.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// What the environment says of the files.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
    profile: String,
}

type Section = BTreeMap<String, String>;

impl Files {
    pub(crate) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let home = variable("HOME").map(PathBuf::from);
        let below = |name: &str| home.as_ref().map(|home| home.join(".aws").join(name));
        Self {
            credentials: variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(|| below("credentials")),
            config: variable("AWS_CONFIG_FILE").map(PathBuf::from).or_else(|| below("config")),
            profile: variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned()),
        }
    }

    /// What the files say of the profile; the credentials file comes first.
    pub(crate) fn read(&self) -> Section {
        let of = |path: &Option<PathBuf>, section: &str| {
            let text = path.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
            parse(&text, section)
        };
        let named = if self.profile == "default" { "default".to_owned() } else { format!("profile {}", self.profile) };
        let mut found = of(&self.config, &named);
        found.extend(of(&self.credentials, &self.profile));
        found
    }

    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.credentials, &self.config]
            .map(|path| path.as_ref().and_then(|path| fs::metadata(path).ok()?.modified().ok()))
    }
}

/// The keys of one section of an INI file. What is indented belongs to a key above and is left out.
fn parse(text: &str, section: &str) -> Section {
    let mut found = Section::new();
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == section;
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = trimmed.split_once('=')
        {
            found.insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    found
}

/// Credentials of a profile, read again whenever a file has changed: a token that was renewed there is used from then on.
#[derive(Debug)]
pub(crate) struct FileCredentials {
    files: Files,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    changed: [Option<SystemTime>; 2],
    credential: Arc<AwsCredential>,
}

impl FileCredentials {
    /// `None` if the files have no keys for the profile.
    pub(crate) fn new(files: Files) -> Option<Self> {
        credential(&files.read())?;
        Some(Self { files, known: Mutex::new(None) })
    }
}

fn credential(section: &Section) -> Option<AwsCredential> {
    Some(AwsCredential {
        key_id: section.get("aws_access_key_id")?.clone(),
        secret_key: section.get("aws_secret_access_key")?.clone(),
        token: section.get("aws_session_token").cloned(),
    })
}

#[async_trait::async_trait]
impl CredentialProvider for FileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let changed = self.files.changed();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.changed == changed) {
            return Ok(Arc::clone(&known.credential));
        }
        let read = credential(&self.files.read()).map(Arc::new);
        match (read, known.as_ref()) {
            (Some(credential), _) => {
                *known = Some(Known { changed, credential: Arc::clone(&credential) });
                Ok(credential)
            }
            // Whoever renews it may be in the midst of writing.
            (None, Some(known)) => Ok(Arc::clone(&known.credential)),
            (None, None) => Err(object_store::Error::Unauthenticated {
                path: String::new(),
                source: format!("the files of AWS credentials have none any more for profile {}", self.files.profile)
                    .into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_a_section_of_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(
            path("credentials"),
            "[default]\naws_access_key_id = one\naws_secret_access_key=first\n\n# a comment\n[other]\n\
             aws_access_key_id=two\naws_secret_access_key = second\naws_session_token = token\n",
        )
        .unwrap();
        fs::write(
            path("config"),
            "[default]\nregion = eu-west-1\ns3 =\n  max_concurrent_requests = 20\n[profile other]\nregion = us-west-2\n\
             endpoint_url = http://127.0.0.1:9000\n",
        )
        .unwrap();
        let files = |profile: Option<&str>| {
            Files::of(&|name| match name {
                "AWS_SHARED_CREDENTIALS_FILE" => Some(path("credentials")),
                "AWS_CONFIG_FILE" => Some(path("config")),
                "AWS_PROFILE" => profile.map(str::to_owned),
                _ => None,
            })
        };
        let default = files(None).read();
        assert_eq!((default["aws_access_key_id"].as_str(), default["region"].as_str()), ("one", "eu-west-1"));
        assert!(!default.contains_key("max_concurrent_requests"));
        let other = files(Some("other")).read();
        let keys = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "endpoint_url"];
        assert_eq!(
            keys.map(|key| other[key].as_str()),
            ["two", "second", "token", "us-west-2", "http://127.0.0.1:9000"]
        );
        assert!(FileCredentials::new(files(Some("nobody"))).is_none());
    }

    #[tokio::test]
    async fn renewed_credentials_are_used_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let write = |key: &str, age: u64| {
            fs::write(&path, format!("[default]\naws_access_key_id={key}\naws_secret_access_key=s\n")).unwrap();
            let when = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + age);
            fs::File::options().write(true).open(&path).unwrap().set_modified(when).unwrap();
        };
        write("old", 0);
        let shown = path.to_str().unwrap().to_owned();
        let files = Files::of(&|name| (name == "AWS_SHARED_CREDENTIALS_FILE").then(|| shown.clone()));
        let provider = FileCredentials::new(files).unwrap();
        assert_eq!(provider.get_credential().await.unwrap().key_id, "old");
        write("new", 1);
        assert_eq!(provider.get_credential().await.unwrap().key_id, "new");
        fs::remove_file(&path).unwrap();
        assert_eq!(provider.get_credential().await.unwrap().key_id, "new");
    }
}
