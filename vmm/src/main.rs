//! placeholder
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let t=std::time::Instant::now();
    let kernel = mote_vmm::KernelImage::embedded().unwrap();
    eprintln!("kernel {:?}", t.elapsed());
    let module = mote_vmm::Module::from_file(args[1].as_ref()).unwrap();
    eprintln!("module {:?}", t.elapsed());
    use std::os::fd::AsFd;
    let config = mote_vmm::Config { arguments: args[1..].to_vec(),
        stdin: mote_vmm::Input::Fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap()),
        stdout: mote_vmm::Output::Fd(std::io::stdout().as_fd().try_clone_to_owned().unwrap()),
        stderr: mote_vmm::Output::Fd(std::io::stderr().as_fd().try_clone_to_owned().unwrap()), ..Default::default() };
    let vm = mote_vmm::Vm::new(&kernel, &module, config).unwrap();
    eprintln!("vm {:?}", t.elapsed());
    let report = vm.run();
    eprintln!("run {:?}", t.elapsed());
    eprintln!("{:#?}", report);
}
