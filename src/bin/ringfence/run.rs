//! `ringfence run`: fences a command and passes its exit status on.

use std::io::IsTerminal;
use std::time::Duration;

use ringfence::audit::{Summary, learned};
use ringfence::kernel::child::{self, ExecError};
use ringfence::kernel::identity::Way;
use ringfence::kernel::passwd::{Account, sudo_user};
use ringfence::plan::Files;
use ringfence::policy::{Capabilities, LearnTo, RunOptions, Sourced};
use ringfence::{Command, Counters, Error, ErrorKind, Host, Result, Running, Sandbox, SandboxOptions};

use crate::args::RunArguments;
use crate::metrics::Metrics;
use crate::place::Place;
use crate::{FAILED, io_error, log, report, settings, stderr, tell};

/// How long threads that do not get on are waited for at the end.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(arguments: RunArguments) -> Result<u8> {
    stderr::share()?;
    log::start(arguments.options.telling.quiet, arguments.options.telling.verbose);
    let settings = settings::settings(&arguments.policy, &arguments.options.confinement, Some(&arguments.options))?;
    let events = tell::open(&settings.run)?;
    let told = arguments.options.telling.quiet || events.as_ref().is_some_and(|events| events.stderr);
    let learn = settings.run.learn.clone().map(|file| match Place::of_file(file.value.as_path()) {
        Ok(place) => Ok((file, place)),
        Err(error) => Err(unlearned(&file, error)),
    });
    let learn = learn.transpose()?;
    let command = command(&arguments.command, &settings.run)?;
    // Nobody hears of a process then, and to find out about it is most of what a short command waits for.
    let unheard = arguments.options.telling.quiet && events.is_none() && settings.run.learn.is_none();
    let options = SandboxOptions {
        identity: if unheard { Way::Off } else { Way::Auto },
        name: settings.run.name.clone(),
        user_namespace: command.needs_user_namespace(),
        ..settings::options(&settings.run)
    };
    // Two workers: one sandbox's proxy, and room for a slow client beside a fast one.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // A program may leave no room for a thread: those that were needed before it came are to stay.
        .thread_keep_alive(Duration::from_secs(u64::from(u32::MAX)))
        .enable_all()
        .build()
        .map_err(|error| io_error("can't start the runtime", error))?;
    let ended = runtime.block_on(async {
        let mut metrics = settings.run.metrics.as_ref().map(Metrics::open).transpose()?;
        let host = Host::open()?;
        let audited = settings.policy.audit.value.then(|| settings.policy.clone());
        let sandbox = Sandbox::prepare_with(&host, settings.policy, options).await?;
        let merges = |name: &str| sandbox.plan().environment.merges(name);
        let own = settings.run.env.iter().map(|variable| &variable.value).filter(|variable| !merges(&variable.name));
        let command = own.fold(command, |command, variable| command.env(&variable.name, &variable.value));
        let teller = events.map(|events| events.follow(sandbox.events())).transpose()?;
        // From before the command is there until everything is undone, no signal that can be passed on ends this process.
        let mut signals = child::hold_signals()?;
        // What was said up to here stands before what the command says.
        stderr::settle();
        let mut running = sandbox.spawn(command).await?;
        signals.pass_to(running.child());
        let status = loop {
            let wanted = async {
                match &mut metrics {
                    Some(metrics) => metrics.wanted().await,
                    None => std::future::pending().await,
                }
            };
            let ask = tokio::select! {
                status = running.wait() => break status,
                ask = wanted => ask,
            };
            if let Some(metrics) = &metrics {
                metrics.tell(ask, counters(&running, &host));
            }
        };
        // The last word, for what was counted since the last tick.
        let mut last = metrics.as_ref().map(|_| counters(&running, &host));
        // The command's end is what the caller waits for, and says nothing of what could not be undone after it.
        let (summary, undone) = running.finish().await;
        if let Err(error) = undone {
            crate::complain(&error);
        }
        if let Some(Ok(counters)) = &mut last
            && let Some(own) = counters.first_mut()
        {
            (own.refused, own.lost) = (Some(summary.refused), Some(summary.lost));
        }
        if let (Some(metrics), Some(last)) = (metrics, last) {
            metrics.tell(None, last);
        }
        if let Some(teller) = teller {
            teller.finish();
        }
        if !told {
            report(&summary);
        }
        if let Some(policy) = audited {
            let learned = learned(&policy, &summary);
            if !told {
                stderr::say(format!("ringfence: a policy that allows this:\n{learned}"));
            }
            if let Some((file, place)) = &learn
                && let Err(error) = place.replace(&learned)
            {
                crate::complain(&unlearned(file, error));
            }
        }
        drop(signals);
        // An error too, after all that was refused has been told.
        Ok(status?.code_for_shell())
    });
    // What there was to take down has been.
    runtime.shutdown_timeout(PATIENCE);
    ended
}

fn unlearned(file: &Sourced<LearnTo>, error: std::io::Error) -> Error {
    io_error(format!("{}: can't write what was learned to `{}`", file.origin, file.value), error)
}

/// What both sides counted.
fn counters(running: &Running, host: &Host) -> Result<Vec<Counters>> {
    Ok(vec![running.counters()?, host.counters()?])
}

/// Tells on standard error what was refused.
fn report(summary: &Summary) {
    stderr::say(report::report(summary, std::io::stderr().is_terminal()));
}

/// The status that an error of ours ends with: 126 and 127 for a command that can't be executed, as with env(1).
pub fn status_of(error: &Error) -> u8 {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(exec) = error.downcast_ref::<ExecError>() {
            return exec.code_for_shell();
        }
        cause = error.source();
    }
    FAILED
}

fn command(line: &[std::ffi::OsString], options: &RunOptions) -> Result<Command> {
    let Some((program, args)) = line.split_first() else {
        return Err(Error::new(ErrorKind::Policy, "there is no command").hint("write it behind `--`"));
    };
    if program.is_empty() {
        return Err(Error::new(ErrorKind::Policy, "the command is empty").hint("write a program's name behind `--`"));
    }
    let mut command = Command::new(program).args(args);
    // Who called sudo is meant to run it, unless somebody else was asked for.
    let user = options.user.as_ref().map(|user| user.value).or_else(sudo_user);
    if let Some(user) = user {
        command = command.user(Account::read(user)?);
    }
    command = command.capabilities(match &options.capabilities.value {
        Capabilities::Default => child::Capabilities::Default,
        Capabilities::None => child::Capabilities::None,
        Capabilities::Keep(kept) => child::Capabilities::Keep(kept.iter().copied().collect()),
    });
    command = command.seccomp(options.seccomp.value);
    if options.share_pid.value {
        command = command.share_pid();
    }
    // A directory that is gone can't be given to anybody.
    Ok(command.files(Files::new(options, std::env::current_dir().ok().as_deref())))
}
