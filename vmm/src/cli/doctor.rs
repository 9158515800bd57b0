//! `mote doctor`: can this machine run micro VMs, how, and what mends it.

use std::{
    fs,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use mote_vmm::{Config, ConfinementSupport, Ending, KernelImage, KvmError, Module, Vm};

use super::{boot::programs, status};

/// A module that does nothing, successfully.
const TRIAL: &str = r#"(module (func (export "_start")))"#;

/// Prints a line as soon as it is known; a reader that went away does not matter to what is found out.
macro_rules! line {
    ($($text:tt)*) => {{
        let _nobody_reads_it = writeln!(io::stdout(), $($text)*);
    }};
}

/// Checks step by step; the first that fails is explained.
pub(crate) fn doctor() -> anyhow::Result<ExitCode> {
    line!("processor          {}", processor());
    line!("virtualization     {}", virtualization());
    match mote_vmm::open_kvm() {
        Ok(_) => line!("/dev/kvm           usable"),
        Err(error) => return Ok(unusable(&error)),
    }
    line!("huge pages         {}", huge_pages());
    line!(
        "time-stamp counter {}",
        if cpu_flag("nonstop_tsc") {
            "invariant: clocks cost no exit"
        } else {
            "not invariant: each clock reading costs an exit"
        }
    );
    let ConfinementSupport { seccomp, landlock_abi } = ConfinementSupport::probe();
    line!("seccomp            {}", seccomp.map_or_else(|error| error.to_string(), |()| "usable".into()));
    line!("Landlock           {}", landlock_abi.map_or_else(|error| error.to_string(), |abi| format!("usable, ABI {abi}")));
    line!("QEMU               {}", qemu());
    let kernel = KernelImage::embedded()?;
    let module = Module::from_bytes("trial".as_ref(), TRIAL.into())?;
    Ok(match trial(&kernel, &module) {
        Ok(()) => {
            line!("trial VM           ran");
            line!("This machine can run micro VMs.");
            ExitCode::SUCCESS
        }
        Err(what) => {
            line!("trial VM           failed: {what}");
            line!("KVM is there, but a VM does not run on it. Please report this with the lines above.");
            ExitCode::from(status::FAILURE)
        }
    })
}

fn trial(kernel: &Arc<KernelImage>, module: &Arc<Module>) -> Result<(), String> {
    let vm = Vm::new(kernel, module, Config::default()).map_err(|error| error.to_string())?;
    match vm.run().ending {
        Ending::Exited(0) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn unusable(error: &KvmError) -> ExitCode {
    line!("/dev/kvm           not usable");
    line!("QEMU               {}", qemu());
    line!("{error}");
    ExitCode::from(status::FAILURE)
}

/// Whether there is what runs modules without KVM.
fn qemu() -> &'static str {
    match programs::find("qemu-system-x86_64") {
        Some(_) => "there: `mote qemu` runs modules without KVM, slowly",
        None => "not there: `mote qemu` would need it (on Debian qemu-system-x86)",
    }
}

fn cpu_info() -> String {
    fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

fn cpu_flag(name: &str) -> bool {
    cpu_info().lines().filter(|line| line.starts_with("flags")).any(|line| line.split_whitespace().any(|flag| flag == name))
}

fn processor() -> String {
    let info = cpu_info();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")).map(|line| line.trim_start_matches(['\t', ' ', ':']));
    model.unwrap_or("unknown").to_owned()
}

/// With hardware, or as a PVM guest without.
fn virtualization() -> &'static str {
    match (cpu_flag("vmx"), cpu_flag("svm"), fs::exists("/sys/module/kvm_pvm").unwrap_or(false)) {
        (true, ..) => "hardware (VMX)",
        (_, true, _) => "hardware (SVM)",
        (_, _, true) => "without hardware (PVM): exits and ring-0 code cost more",
        (false, false, false) => "no VMX or SVM flag: KVM can only work without hardware (PVM)",
    }
}

fn huge_pages() -> String {
    match fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled") {
        Ok(text) if text.contains("[never]") => {
            "off: memory costs more to touch (echo madvise > /sys/kernel/mm/transparent_hugepage/enabled)".into()
        }
        Ok(_) => "transparent huge pages are used".into(),
        Err(_) => "this kernel has no transparent huge pages".into(),
    }
}
