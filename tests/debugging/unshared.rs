//! What a debugger does to code is seen by its guest alone: others run the same kernel and module meanwhile.

use std::{thread, time::Duration};

use mote_abi::layout::{IMAGE, MODULE};
use mote_vmm::{Config, Confinement, Departure, Ending, Limits, Vm};

use super::machine_code::Debugged;
use crate::support::{
    command::payload,
    engine::{self, by_engine},
    kvm,
    verdict::Verdict,
};

fn config() -> Config {
    let limits = Limits { deadline: Some(Duration::from_secs(30)), ..Limits::default() };
    Config { arguments: vec!["test".into()], limits, confinement: Confinement::Off, ..Config::default() }
}

#[test]
fn breakpoints_are_in_one_vm() {
    if !kvm::usable() {
        return;
    }
    let (kernel, module) = (engine::kernel(), engine::module_file(&payload("exit.wat")));
    let run = || Vm::new(&kernel, &module, config()).unwrap().run().ending;
    let before = Vm::new(&kernel, &module, config()).unwrap();
    let mut guest = Debugged::start(&kernel, &module, config());
    let mut other = Debugged::start(&kernel, &module, config());
    // All of the first page: nothing runs with that.
    guest.client.expect(&format!("M{:x},20:{}", IMAGE.start, "cc".repeat(32)), "OK");
    guest.client.expect(&format!("Z0,{:x},1", IMAGE.start + 64), "OK");
    assert!(matches!(before.run().ending, Ending::Exited(42)));
    assert!(matches!(run(), Ending::Exited(42)));
    other.client.expect("vCont;c", "W2a");
    assert_eq!(other.finish(), (Verdict::Exited(42), Departure::Ended));
    assert!(guest.client.ask("vCont;c").contains("05"));
    guest.client.tell("k");
    assert_eq!(guest.finish(), (Verdict::Interrupted, Departure::Killed));
    assert!(matches!(run(), Ending::Exited(42)));
}

/// A loop of the interpreter, or of the module's own code.
#[test]
fn code_of_modules_is_in_one_vm_as_well() {
    if !kvm::usable() {
        return;
    }
    let (kernel, module) = (engine::kernel(), engine::module_file(&payload("spin.wat")));
    let [mut guest, mut other] = [(), ()].map(|()| Debugged::start(&kernel, &module, config()));
    let code = by_engine(IMAGE, MODULE);
    // For the interpreter's loop, and not what comes before it.
    guest.client.tell("vCont;c");
    thread::sleep(Duration::from_secs(1));
    guest.client.interrupt();
    let rip = guest.client.run_into(code);
    other.client.run_into(code);
    guest.client.expect(&format!("Z0,{rip:x},1"), "OK");
    guest.client.step();
    assert_eq!(guest.client.run_to_breakpoint(), rip);
    // The other one passes the same place without end.
    other.client.run_into(code);
    for debugged in [guest, other] {
        let mut debugged = debugged;
        debugged.client.tell("k");
        assert_eq!(debugged.finish(), (Verdict::Interrupted, Departure::Killed));
    }
}
