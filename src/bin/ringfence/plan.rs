//! `ringfence plan`: what `run` would do, on standard output.

use std::io::Write;

use ringfence::Result;
use ringfence::plan::Format;

use crate::args::{PlanArguments, PlanFormat};
use crate::{io_error, settings};

pub fn plan(arguments: PlanArguments) -> Result<u8> {
    let settings = settings::settings(&arguments.policy, &arguments.confinement, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| io_error("can't start the runtime", error))?;
    let plan = runtime.block_on(ringfence::plan(&settings.policy, &settings::options(&settings.run)))?;
    let plan = plan.command(settings.run, std::env::current_dir().ok().as_deref());
    let format = match arguments.format {
        PlanFormat::Text => Format::Text,
        PlanFormat::Json => Format::Json,
        PlanFormat::Nft => Format::Nft,
        PlanFormat::Dot => Format::Dot,
    };
    let shown = plan.show(format);
    match std::io::stdout().write_all(shown.as_bytes()) {
        // The reader has seen enough: `ringfence plan | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(io_error("can't write to standard output", error)),
        Ok(()) => Ok(0),
    }
}
