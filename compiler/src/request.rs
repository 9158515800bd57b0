//! What is asked for: the arguments. They come from the process that started this one, which is trusted.

use std::str::FromStr;

use crate::protocol;

/// The arguments.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) counts_fuel: bool,
    pub(crate) features: Vec<String>,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_seconds: u64,
    pub(crate) artifact_bytes: u64,
    pub(crate) threads: usize,
    pub(crate) parent: u32,
}

impl Request {
    /// All options must be there but the flag.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut request, mut given) = (Self::default(), 0);
        for argument in arguments {
            let value = |name| argument.strip_prefix(name);
            given += 1;
            if argument == protocol::FUEL {
                request.counts_fuel = true;
                given -= 1;
            } else if let Some(names) = value(protocol::FEATURES) {
                request.features = names.split(',').filter(|name| !name.is_empty()).map(String::from).collect();
            } else if let Some(bytes) = value(protocol::MEMORY) {
                request.memory_bytes = number(bytes)?;
            } else if let Some(seconds) = value(protocol::CPU_SECONDS) {
                request.cpu_seconds = number(seconds)?;
            } else if let Some(bytes) = value(protocol::ARTIFACT) {
                request.artifact_bytes = number(bytes)?;
            } else if let Some(threads) = value(protocol::THREADS) {
                request.threads = number(threads)?;
            } else if let Some(process) = value(protocol::PARENT) {
                request.parent = number(process)?;
            } else {
                return Err(format!("unknown argument {argument:?}"));
            }
        }
        if given == 6 { Ok(request) } else { Err("this program is started by mote, and by nobody else".into()) }
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number, or too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Request, String> {
        Request::parse(arguments.split(' ').map(String::from))
    }

    #[test]
    fn all_that_is_asked_for_is_understood() {
        let all = "--fuel --features=has_sse3,has_avx --memory=5 --cpu-seconds=6 --artifact=7 --threads=2 --parent=9";
        let request = parse(all).unwrap();
        assert_eq!(
            request,
            Request {
                counts_fuel: true,
                features: vec!["has_sse3".into(), "has_avx".into()],
                memory_bytes: 5,
                cpu_seconds: 6,
                artifact_bytes: 7,
                threads: 2,
                parent: 9,
            }
        );
        assert!(parse(&all.replace("has_sse3,has_avx", "")).unwrap().features.is_empty());
        assert!(parse(&all.replace("--fuel ", "")).is_ok_and(|request| !request.counts_fuel));
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused() {
        assert!(parse("--fuel").unwrap_err().contains("started by mote"));
        assert!(parse("--memory=x").unwrap_err().contains("no number"));
        assert!(parse("--confinement=off").unwrap_err().contains("unknown"));
    }
}
