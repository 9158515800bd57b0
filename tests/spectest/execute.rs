//! Runs a script on any engine.

use std::collections::HashMap;

use mote_vmm::TrapKind;

use super::{
    engine::{Engine, Failure},
    script::{Action, Binary, Directive, Execute},
    value::{Bits, Expected, Lacking},
};

/// What came of a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    NotRun(Reason),
    /// The parser of the text format decided: no engine had a part in it.
    Text(Result<(), String>),
}

/// Why a directive was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It needs this proposal.
    Proposal(Lacking),
    /// The module that it is about could not be instantiated, but should have been; that is told of the module.
    NoModule,
    /// It only defines a module, which engines are not asked to do by itself.
    OnlyDefined,
}

/// What an engine did: compared between engines, bit by bit.
pub(crate) type Observed = Result<Vec<Bits>, Failure>;

/// A directive that was looked at.
pub(crate) struct Step {
    pub(crate) verdict: Verdict,
    /// Nothing if the engine was not asked.
    pub(crate) observed: Option<Observed>,
}

/// Runs all directives, in order.
pub(crate) fn execute<E: Engine>(engine: &mut E, script: &[Directive]) -> Vec<Step> {
    let mut executor = Executor {
        engine,
        current: Err(Reason::NoModule),
        named: HashMap::new(),
        definitions: HashMap::new(),
        absent: HashMap::new(),
    };
    script.iter().map(|directive| executor.step(&directive.action)).collect()
}

struct Executor<'a, E: Engine> {
    engine: &'a mut E,
    current: Result<E::Instance, Reason>,
    named: HashMap<String, Result<E::Instance, Reason>>,
    /// The last one has no name here, and may have one beside that.
    definitions: HashMap<Option<String>, Binary>,
    /// Names under which a module was to be registered that there is not.
    absent: HashMap<String, Reason>,
}

/// What an engine was asked, unless it could not be.
type Asked = Result<Observed, Reason>;

impl<E: Engine> Executor<'_, E> {
    fn step(&mut self, action: &Action) -> Step {
        match action {
            Action::Module { name, module } => self.module(name.as_ref(), module),
            Action::Definition { name, module } => {
                self.definitions.insert(name.clone(), module.clone());
                self.definitions.insert(None, module.clone());
                not_run(Reason::OnlyDefined)
            }
            Action::Instance { name, definition } => match self.definitions.get(definition).cloned() {
                Some(module) => self.module(name.as_ref(), &module),
                None => not_run(Reason::NoModule),
            },
            Action::Register { name, module } => self.register(name, module.as_ref()),
            Action::Execute(execute) => judge(self.ask(execute), |observed| observed.is_ok()),
            Action::Returns { execute, results } => {
                let asked = self.ask(execute);
                match results {
                    Ok(results) => judge(asked, |observed| returned(observed, results)),
                    Err(lacking) => Step { verdict: Verdict::NotRun(Reason::Proposal(lacking)), observed: asked.ok() },
                }
            }
            Action::Traps { execute, message } => judge(self.ask(execute), |observed| trapped(observed, message)),
            Action::Throws(execute) => judge(self.ask(execute), thrown),
            Action::Unlinkable(module) => {
                judge(self.instantiate(module), |observed| matches!(observed, Err(Failure::Unlinkable(_))))
            }
            Action::Refused(module) => judge(self.instantiate(module), |observed| matches!(observed, Err(Failure::Invalid(_)))),
            Action::Text(result) => Step { verdict: Verdict::Text(result.clone()), observed: None },
            Action::Needs(lacking) => not_run(Reason::Proposal(lacking)),
        }
    }

    /// Instantiates a module, which is then the current one, and the one of its name.
    fn module(&mut self, name: Option<&String>, module: &Binary) -> Step {
        let (instance, step) = match self.new_instance(module) {
            Ok(Ok(instance)) => (Ok(instance), Step { verdict: Verdict::Passed, observed: Some(Ok(Vec::new())) }),
            Ok(Err(failure)) => (Err(Reason::NoModule), judge(Ok(Err(failure)), |_| false)),
            Err(reason) => (Err(reason), not_run(reason)),
        };
        if let Some(name) = name {
            self.named.insert(name.clone(), instance);
        }
        self.current = instance;
        step
    }

    fn register(&mut self, name: &str, module: Option<&String>) -> Step {
        match self.instance(module) {
            Ok(instance) => {
                self.absent.remove(name);
                judge(Ok(self.engine.register(name, instance).map(|()| Vec::new())), |observed| observed.is_ok())
            }
            Err(reason) => {
                self.absent.insert(name.into(), reason);
                not_run(reason)
            }
        }
    }

    fn ask(&mut self, execute: &Execute) -> Asked {
        match execute {
            Execute::Invoke { module, name, arguments } => {
                let instance = self.instance(module.as_ref())?;
                let arguments = arguments.as_ref().map_err(|lacking| Reason::Proposal(lacking))?;
                Ok(self.engine.invoke(instance, name, arguments))
            }
            Execute::Global { module, name } => {
                let instance = self.instance(module.as_ref())?;
                Ok(self.engine.global(instance, name).map(|value| vec![value]))
            }
            Execute::Instantiate(module) => self.instantiate(module),
        }
    }

    fn instantiate(&mut self, module: &Binary) -> Asked {
        Ok(self.new_instance(module)?.map(|_| Vec::new()))
    }

    /// Instantiates a module, unless the engine lacks what it needs, and says so.
    fn new_instance(&mut self, module: &Binary) -> Result<Result<E::Instance, Failure>, Reason> {
        let absent = module.imports.iter().find_map(|name| self.absent.get(name));
        match (module.lacking, absent) {
            (Some(lacking), _) => match self.engine.instantiate(&module.bytes) {
                Err(Failure::Invalid(_)) => Err(Reason::Proposal(lacking)),
                result => Ok(result),
            },
            (None, Some(reason)) => Err(*reason),
            (None, None) => Ok(self.engine.instantiate(&module.bytes)),
        }
    }

    fn instance(&self, name: Option<&String>) -> Result<E::Instance, Reason> {
        match name {
            None => self.current,
            Some(name) => self.named.get(name).copied().unwrap_or(Err(Reason::NoModule)),
        }
    }
}

fn not_run(reason: Reason) -> Step {
    Step { verdict: Verdict::NotRun(reason), observed: None }
}

fn judge(asked: Asked, is_right: impl FnOnce(&Observed) -> bool) -> Step {
    match asked {
        Ok(observed) => {
            let verdict = if is_right(&observed) { Verdict::Passed } else { Verdict::Failed(format!("{observed:x?}")) };
            Step { verdict, observed: Some(observed) }
        }
        Err(reason) => not_run(reason),
    }
}

fn returned(observed: &Observed, expected: &[Expected]) -> bool {
    let Ok(values) = observed else { return false };
    values.len() == expected.len() && expected.iter().zip(values).all(|(expected, value)| expected.matches(*value))
}

/// Whether it trapped with this message, which may say less than the name, or more: `undefined`, `uninitialized element 2`.
fn trapped(observed: &Observed, message: &str) -> bool {
    let Err(Failure::Trap(name)) = observed else { return false };
    // An indirect call beyond a table is the same to the engine as any other access there.
    let other_name = match name.as_str() {
        name if Some(name) == TrapKind::TableOutOfBounds.name() => Some("undefined element"),
        // Scripts say which kind of reference.
        "null reference" if message.starts_with("null ") && message.ends_with(" reference") => Some(message),
        _ => None,
    };
    let is_meant = |name: &str| message.starts_with(name) || (!message.is_empty() && name.starts_with(message));
    is_meant(name) || other_name.is_some_and(is_meant)
}

/// Whether an exception left it that nothing catches.
fn thrown(observed: &Observed) -> bool {
    matches!(observed, Err(Failure::Trap(name)) if name == "thrown Wasm exception")
}
