//! The command line of spectrald: see `spectrald --help`.

fn main() -> std::process::ExitCode {
    spectrald::cli::main()
}
