//! Scripts as data: what the parser of the text format makes of a file, with modules in binary format.

use mote_vmm::Value;
use wast::{
    QuoteWat, Wast, WastArg, WastDirective, WastExecute, WastInvoke, WastRet, Wat,
    lexer::Lexer,
    parser::{self, ParseBuffer},
    token::Id,
};

use super::{
    proposals,
    value::{self, Expected, Lacking},
};
use crate::support::engine::{Engine, under_test};

/// One directive of a script.
pub(crate) struct Directive {
    pub(crate) line: usize,
    pub(crate) kind: &'static str,
    pub(crate) action: Action,
}

/// A module in binary format.
#[derive(Clone)]
pub(crate) struct Binary {
    pub(crate) bytes: Vec<u8>,
    /// The proposal that it needs and that the engine does not have.
    pub(crate) lacking: Option<Lacking>,
    /// Names of the modules that it imports from.
    pub(crate) imports: Vec<String>,
}

/// What a directive wants. Modules have no name, or one that begins with a `$` in the script.
pub(crate) enum Action {
    Module {
        name: Option<String>,
        module: Binary,
    },
    Definition {
        name: Option<String>,
        module: Binary,
    },
    Instance {
        name: Option<String>,
        definition: Option<String>,
    },
    Register {
        name: String,
        module: Option<String>,
    },
    Execute(Execute),
    Returns {
        execute: Execute,
        results: Result<Vec<Expected>, Lacking>,
    },
    Traps {
        execute: Execute,
        message: String,
    },
    /// It ends with an exception that nothing catches.
    Throws(Execute),
    /// The module must not link.
    Unlinkable(Binary),
    /// The module must not be valid, or not even well-formed.
    Refused(Binary),
    /// Decided by the parser of the text format.
    Text(Result<(), String>),
    Needs(Lacking),
}

pub(crate) enum Execute {
    Invoke { module: Option<String>, name: String, arguments: Result<Vec<Value>, Lacking> },
    Global { module: Option<String>, name: String },
    Instantiate(Binary),
}

/// Reads a script.
pub(crate) fn parse(text: &str) -> Result<Vec<Directive>, wast::Error> {
    let mut lexer = Lexer::new(text);
    // The suite tests that such characters are let through.
    lexer.allow_confusing_unicode(true);
    let buffer = ParseBuffer::new_with_lexer(lexer)?;
    let mut lines = Lines { text, at: 0, line: 1 };
    let directives = parser::parse::<Wast<'_>>(&buffer)?.directives;
    Ok(directives
        .into_iter()
        .map(|directive| {
            let line = lines.of(directive.span().offset());
            let (kind, action) = action(directive);
            Directive { line, kind, action }
        })
        .collect())
}

/// Lines of places that come in order.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn of(&mut self, offset: usize) -> usize {
        self.line += self.text.as_bytes().get(self.at..offset).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
        self.at = self.at.max(offset);
        self.line
    }
}

fn action(directive: WastDirective<'_>) -> (&'static str, Action) {
    use WastDirective as D;
    match directive {
        D::Module(module) => ("module", defined(module, |name, module| Action::Module { name, module })),
        D::ModuleDefinition(module) => ("module definition", defined(module, |name, module| Action::Definition { name, module })),
        D::ModuleInstance { instance, module, .. } => {
            ("module instance", Action::Instance { name: instance.map(id), definition: module.map(id) })
        }
        D::AssertMalformed { module, .. } => ("assert_malformed", refused(module)),
        D::AssertInvalid { module, .. } => ("assert_invalid", refused(module)),
        D::AssertMalformedCustom { module, .. } => ("assert_malformed_custom", custom(module)),
        D::AssertInvalidCustom { module, .. } => ("assert_invalid_custom", custom(module)),
        D::Register { name, module, .. } => ("register", Action::Register { name: name.into(), module: module.map(id) }),
        D::Invoke(call) => ("invoke", Action::Execute(invoke(&call))),
        D::AssertTrap { exec, message, .. } => {
            ("assert_trap", execute(exec, |execute| Action::Traps { execute, message: message.into() }))
        }
        D::AssertReturn { exec, results, .. } => {
            let results = results.iter().map(expected).collect::<Result<_, _>>();
            ("assert_return", execute(exec, |execute| Action::Returns { execute, results }))
        }
        D::AssertExhaustion { call, message, .. } => {
            ("assert_exhaustion", Action::Traps { execute: invoke(&call), message: message.into() })
        }
        D::AssertUnlinkable { module, .. } => ("assert_unlinkable", valid(module.into(), Action::Unlinkable)),
        D::AssertException { exec, .. } => match under_test() {
            Engine::Interp => ("assert_exception", Action::Needs("exceptions")),
            Engine::Aot => ("assert_exception", execute(exec, Action::Throws)),
        },
        D::AssertSuspension { .. } => ("assert_suspension", Action::Needs("stack-switching")),
        D::Thread(_) => ("thread", Action::Needs("threads")),
        D::Wait { .. } => ("wait", Action::Needs("threads")),
    }
}

fn defined(module: QuoteWat<'_>, action: impl FnOnce(Option<String>, Binary) -> Action) -> Action {
    let name = module.name().map(id);
    valid(module.into(), |module| action(name, module))
}

/// A module in either form in which the parser has it.
struct Module<'a>(QuoteWat<'a>);

impl<'a> From<QuoteWat<'a>> for Module<'a> {
    fn from(module: QuoteWat<'a>) -> Self {
        Self(module)
    }
}

impl<'a> From<Wat<'a>> for Module<'a> {
    fn from(module: Wat<'a>) -> Self {
        Self(QuoteWat::Wat(module))
    }
}

/// An action with a module that is valid by some version of the specification.
fn valid(mut module: Module<'_>, action: impl FnOnce(Binary) -> Action) -> Action {
    match module.0.encode() {
        Ok(bytes) => {
            let (lacking, imports) = (proposals::needed_by_valid(&bytes), proposals::imported_modules(&bytes));
            action(Binary { bytes, lacking, imports })
        }
        Err(error) => Action::Text(Err(format!("the text does not parse: {}", error.message()))),
    }
}

/// An action with a module that must be refused: if it is text that does not parse, that was done here.
fn refused(mut module: QuoteWat<'_>) -> Action {
    match module.encode() {
        Ok(bytes) => {
            let lacking = proposals::needed_by_invalid(&bytes);
            Action::Refused(Binary { bytes, lacking, imports: Vec::new() })
        }
        Err(_) => Action::Text(Ok(())),
    }
}

/// An annotation for a custom section that must be refused: it is nothing to engines.
fn custom(mut module: QuoteWat<'_>) -> Action {
    Action::Text(module.encode().map_or(Ok(()), |_| Err("the annotation was accepted".into())))
}

fn execute(execute: WastExecute<'_>, action: impl FnOnce(Execute) -> Action) -> Action {
    match execute {
        WastExecute::Invoke(call) => action(invoke(&call)),
        WastExecute::Get { module, global, .. } => action(Execute::Global { module: module.map(id), name: global.into() }),
        WastExecute::Wat(module) => valid(module.into(), |module| action(Execute::Instantiate(module))),
    }
}

fn invoke(call: &WastInvoke<'_>) -> Execute {
    let argument = |argument: &WastArg<'_>| match argument {
        WastArg::Core(argument) => value::argument(argument),
        _ => Err("component-model"),
    };
    let arguments = call.args.iter().map(argument).collect();
    Execute::Invoke { module: call.module.map(id), name: call.name.into(), arguments }
}

fn expected(result: &WastRet<'_>) -> Result<Expected, Lacking> {
    match result {
        WastRet::Core(result) => Expected::new(result),
        _ => Err("component-model"),
    }
}

fn id(id: Id<'_>) -> String {
    id.name().into()
}
