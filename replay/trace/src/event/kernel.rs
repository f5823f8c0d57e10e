//! Names of kernels: as images have them, and as people write them.

use std::fmt::{self, Display, Formatter, Write};
use std::sync::Arc;

use cpp_demangle::{BorrowedSymbol, DemangleOptions};

/// Longer names are shown as images have them: one that refers to its own parts can be huge when it is written out.
const DEMANGLED_MAX: usize = 4 << 10;

/// The name of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelName {
    symbol: Box<str>,
    demangled: Option<Box<str>>,
    /// That without return type and parameters.
    short: Option<Box<str>>,
}

impl KernelName {
    /// That of the kernel which is called `symbol` in its image.
    pub fn new(symbol: &str) -> Arc<KernelName> {
        let short = DemangleOptions::new().no_params().no_return_type();
        Arc::new(KernelName {
            symbol: symbol.into(),
            demangled: demangle(symbol, DemangleOptions::new()),
            short: demangle(symbol, short),
        })
    }

    /// As its image has it: of C++, mangled.
    pub fn symbol(&self) -> &str {
        &self.symbol
    }

    /// As the program's source has it, with parameters: `vector_add(float const*, float*, int)`. None for
    /// a name that is no mangled one of C++.
    pub fn demangled(&self) -> Option<&str> {
        self.demangled.as_deref()
    }

    /// Whether people may call it `name`: as its image does, or demangled, with or without return type and
    /// parameters.
    pub fn is_called(&self, name: &str) -> bool {
        let names = [Some(self.symbol()), self.demangled(), self.short.as_deref()];
        names.contains(&Some(name))
    }
}

impl Display for KernelName {
    /// For people.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.demangled().unwrap_or(&self.symbol))
    }
}

/// What a symbol of C++ is called in its source.
fn demangle(symbol: &str, options: DemangleOptions) -> Option<Box<str>> {
    if !symbol.starts_with("_Z") || symbol.len() > DEMANGLED_MAX {
        return None;
    }
    let (parsed, rest) = BorrowedSymbol::with_tail(symbol.as_bytes()).ok()?;
    let mut text = Bounded(String::new());
    parsed.structured_demangle(&mut text, &options).ok()?;
    rest.is_empty().then(|| text.0.into())
}

/// Text of `DEMANGLED_MAX` bytes at most.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.0.len() + more.len() > DEMANGLED_MAX {
            return Err(fmt::Error);
        }
        self.0.push_str(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR_ADD: &str = "_Z10vector_addPKfS0_Pfi";

    #[test]
    fn a_name_of_cpp_is_shown_as_its_source_has_it() {
        let shown = |symbol: &str| KernelName::new(symbol).to_string();
        assert_eq!(
            shown(VECTOR_ADD),
            "vector_add(float const*, float const*, float*, int)"
        );
        assert_eq!(
            shown("_Z5scaleIfEvPT_S0_"),
            "void scale<float>(float*, float)"
        );
        assert_eq!(shown("_ZN3foo3barEv"), "foo::bar()");
    }

    #[test]
    fn other_names_are_left_as_they_are() {
        for symbol in [
            "saxpy",
            "",
            "_Z",
            "_Znonsense",
            "_Z3foov@x",
            "_ZN",
            "Z3foov",
        ] {
            let name = KernelName::new(symbol);
            assert_eq!(name.demangled(), None, "{symbol}");
            assert_eq!(name.to_string(), symbol);
        }
    }

    #[test]
    fn it_answers_to_all_its_names() {
        let name = KernelName::new("_Z5scaleIfEvPT_S0_");
        for known in [
            "_Z5scaleIfEvPT_S0_",
            "void scale<float>(float*, float)",
            "scale<float>",
        ] {
            assert!(name.is_called(known), "{known}");
        }
        for other in ["scale", "_Z5scale", "scale<double>", "scale<float>("] {
            assert!(!name.is_called(other), "{other}");
        }
        let plain = KernelName::new("saxpy");
        assert!(plain.is_called("saxpy"));
        assert!(!plain.is_called("sax"));
    }

    #[test]
    fn a_name_that_grows_without_bounds_is_not_written_out() {
        // Each parameter is a pair of two of the one before.
        let doubled = |times: usize| {
            let pairs = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".chars();
            let pairs = pairs.take(times).map(|id| format!("S_IS{id}_S{id}_E"));
            KernelName::new(&format!("_Z1fSt4pairIiiE{}", pairs.collect::<String>()))
        };
        assert!(doubled(2).demangled().is_some_and(|name| name.len() > 100));
        assert_eq!(doubled(30).demangled(), None);
        let deep = format!("_Z1f{}i", "P".repeat(4000));
        assert_eq!(KernelName::new(&deep).demangled(), None);
    }
}
