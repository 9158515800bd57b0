//! Calling an export by name, with arguments as text. The kernel does the same for `mote run --invoke` of a module; what is
//! accepted, printed and said here is what it accepts, prints and says.

use mote_kernel_logic::number::{NumberError, parse_i32, parse_i64, parse_u128};
use mote_vmm::{CallError, Export, ExportType, FuncType, Rejection, Sandbox, Value, ValueType};

/// A call that can be made.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    function: String,
    arguments: Vec<Value>,
}

impl Invocation {
    /// A call of the export `function` with these arguments, if it takes such.
    pub(crate) fn new(exports: &[Export], function: String, arguments: &[String]) -> Result<Self, Rejection> {
        let export = exports.iter().find(|export| export.name == function);
        let Some(ExportType::Func(ty)) = export.map(|export| &export.ty) else {
            return Err(Rejection::CannotRun(format!("it exports no function `{function}`")));
        };
        let arguments = parse_all(&function, ty, arguments).map_err(Rejection::CannotRun)?;
        Ok(Self { function, arguments })
    }

    pub(crate) fn call(&self, sandbox: &mut Sandbox) -> Result<Vec<Value>, CallError> {
        sandbox.call_dynamic(&self.function, &self.arguments)
    }
}

/// Results, one a line.
pub(crate) fn show(results: &[Value]) -> String {
    results.iter().map(|result| format!("{}\n", text(result))).collect()
}

fn parse_all(function: &str, FuncType { params, .. }: &FuncType, arguments: &[String]) -> Result<Vec<Value>, String> {
    if params.len() != arguments.len() {
        let (wanted, given, names) = (params.len(), arguments.len(), names(params));
        return Err(format!("`{function}` takes {wanted} arguments {names}, {given} were given"));
    }
    let value = |(index, (ty, text)): (usize, (&ValueType, &String))| {
        let refusal = |reason| format!("argument {} of `{function}`: {text:?} {reason} {}", index + 1, names(&[*ty]));
        parse(*ty, text).map_err(refusal)
    };
    params.iter().zip(arguments).enumerate().map(value).collect()
}

fn parse(ty: ValueType, text: &str) -> Result<Value, &'static str> {
    let reason = |error| match error {
        NumberError::Malformed => "is not a number of type",
        NumberError::OutOfRange => "is out of range for type",
    };
    match ty {
        ValueType::I32 => parse_i32(text).map(Value::I32).map_err(reason),
        ValueType::I64 => parse_i64(text).map(Value::I64).map_err(reason),
        ValueType::F32 => text.parse().map(Value::F32).map_err(|_| reason(NumberError::Malformed)),
        ValueType::F64 => text.parse().map(Value::F64).map_err(|_| reason(NumberError::Malformed)),
        ValueType::V128 => parse_u128(text).map(Value::V128).map_err(reason),
        ValueType::FuncRef | ValueType::ExternRef | ValueType::OtherRef => Err("cannot be given on a command line as"),
    }
}

/// Types as in the text format.
fn names(types: &[ValueType]) -> String {
    let names: Vec<_> = types.iter().map(|ty| ty.name()).collect();
    format!("({})", names.join(", "))
}

fn text(value: &Value) -> String {
    match value {
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::V128(value) => value.to_string(),
        Value::FuncRef(None) | Value::ExternRef(None) | Value::OtherRef(None) => "<null>".into(),
        Value::FuncRef(Some(_)) => "<funcref>".into(),
        Value::ExternRef(Some(_)) => "<externref>".into(),
        Value::OtherRef(Some(_)) => "<ref>".into(),
    }
}
