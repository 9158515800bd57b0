//! The command line for somebody's own terminal, and the files that it names.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{
    super::{
        boot::{
            self,
            load::Files,
            machine::{self, Lines},
        },
        failure::Failure,
        guest::shown,
        print as print_text, say,
    },
    Plan, QemuArgs, boot_options,
};

/// Writes the files and prints the command; the exit status.
pub(super) fn print(arguments: &QemuArgs, files: &Files, plan: &Plan) -> Result<u8, Failure> {
    let directory = directory(arguments.keep.as_deref())?;
    let (in_bundle, append) = command_line(plan);
    let kernel = write(&directory, "kernel", |to| to.write_all(&files.kernel))?;
    let bundle = write(&directory, "bundle", |to| boot::write_bundle(files, &in_bundle, to))?;
    let records = directory.join("records");
    let lines = Lines { console: "stdio".into(), record: file_backend(&records)? };
    let boot = boot_options(arguments, &kernel, &bundle, &append);
    let program = [arguments.machine.qemu.clone().into_os_string()];
    let line = arguments.machine.line(&machine::memory(arguments.guest.memory), &lines, boot);
    let words: Vec<OsString> = program.into_iter().chain(line).collect();
    print_text(&[quoted(&words)?, b"\n".to_vec()].concat())?;
    say(format_args!(
        "mote: kernel and bundle are in {}, which is yours to remove; the exit status will be in its file `records`, not in QEMU's \
         own\n",
        shown(&directory)
    ));
    Ok(0)
}

/// For whom sits at a terminal when the command is printed, it is one for people.
fn command_line(plan: &Plan) -> (String, String) {
    let mut plan = Plan { words: plan.words.clone(), program_arguments: plan.program_arguments.clone() };
    if io::stdin().is_terminal() && !plan.words.has("terminal") {
        plan.words.push("terminal", None);
    }
    plan.command_line()
}

/// An absolute path, so that the command works anywhere.
fn directory(keep: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = match keep {
        Some(path) => {
            fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", shown(path)))?;
            path.to_owned()
        }
        None => {
            let directory = tempfile::Builder::new().prefix("mote-qemu-").tempdir().context("cannot make a directory")?;
            directory.keep()
        }
    };
    Ok(path.canonicalize().with_context(|| format!("cannot find {}", shown(&path)))?)
}

fn write(
    directory: &Path,
    name: &str,
    contents: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<PathBuf, Failure> {
    let path = directory.join(name);
    let written = File::create(&path).map(BufWriter::new).and_then(|mut file| contents(&mut file).and_then(|()| file.flush()));
    written.with_context(|| format!("cannot write {}", shown(&path)))?;
    Ok(path)
}

/// A comma in a value is written twice.
fn file_backend(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::usage(format!("{} is not UTF-8: give another by --keep", shown(path))))?;
    Ok(format!("file,path={}", text.replace(',', ",,")))
}

fn quoted(words: &[OsString]) -> Result<Vec<u8>, Failure> {
    let quote = |word: &OsString| {
        let text = shlex::bytes::try_quote(OsStr::as_encoded_bytes(word)).context("an argument cannot be quoted")?;
        anyhow::Ok(text.into_owned())
    };
    Ok(words.iter().map(quote).collect::<Result<Vec<_>, _>>()?.join(&b' '))
}
