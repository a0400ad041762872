//! Calls about dispatchers.

use super::{Answer, Arguments, DONE, value};
use crate::arch::entry::Registers;
use crate::dispatcher::{State, own_slot};
use crate::kernel::Kernel;
use crate::lrpc::Outcome;
use crate::recording;
use abi::capability::{Kind, Rights};
use abi::layout::{USER_END, USER_MIN};
use abi::limits::PRIORITIES;
use abi::syscall::{Error, REGISTERS, life, property};

/// What of `rflags` ring 3 may change: the arithmetic flags, trap, direction, resume, alignment
/// check, identification.
const USER_FLAGS: u64 = 0x25_0dd5;
/// What always is set: interrupts are on.
const FIXED_FLAGS: u64 = 0x202;

/// Handle of the dispatcher that a capability with these rights is to.
fn handle(kernel: &mut Kernel, dispatcher: u64, rights: Rights) -> Result<usize, Error> {
    let base = kernel.find(dispatcher, Kind::Dispatcher, rights)?.base;
    kernel.processor.handle_at(base).ok_or(Error::NotFound)
}

pub fn start(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let handle = handle(kernel, arguments[0], Rights::WRITE)?;
    let kernel_root = kernel.processor.kernel_root;
    let dispatcher = kernel.processor.dispatcher(handle);
    if dispatcher.is_none_or(|one| one.root == kernel_root) {
        return Err(Error::NotReady.into());
    }
    kernel.start(handle);
    DONE
}

pub fn stop(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let handle = handle(kernel, arguments[0], Rights::WRITE)?;
    kernel.processor.stop(handle);
    DONE
}

pub fn read_register(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let handle = handle(kernel, arguments[0], Rights::READ)?;
    let register = register(kernel, handle, arguments[1])?;
    value(*register)
}

pub fn write_register(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [dispatcher, number, new, ..] = arguments;
    let handle = handle(kernel, dispatcher, Rights::WRITE)?;
    if kernel.processor.current() == Some(handle) {
        return Err(Error::BadArgument.into());
    }
    let new = match REGISTERS.get(number as usize) {
        Some(&"rip") if !(USER_MIN..USER_END).contains(&new) => {
            return Err(Error::BadArgument.into());
        }
        Some(&"rflags") => new & USER_FLAGS | FIXED_FLAGS,
        _ => new,
    };
    *register(kernel, handle, number)? = new;
    // Now all of them count. (Those that a system call loses are as they were.)
    if let Some(dispatcher) = kernel.processor.dispatcher(handle) {
        dispatcher.registers.all = 1;
    }
    DONE
}

pub fn configure(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [dispatcher, which, value, more, number, _] = arguments;
    let handle = handle(kernel, dispatcher, Rights::WRITE)?;
    match which {
        property::CSPACE => endow(kernel, handle, own_slot::CSPACE, value, Kind::CNode),
        property::SPACE => endow(kernel, handle, own_slot::SPACE, value, Kind::PageTable4),
        property::FAULT_HANDLER if value == 0 => {
            kernel.relieve(handle, own_slot::FAULT_HANDLER);
            DONE
        }
        property::FAULT_HANDLER => endow(
            kernel,
            handle,
            own_slot::FAULT_HANDLER,
            value,
            Kind::Endpoint,
        ),
        property::DOORBELL => endow(kernel, handle, own_slot::DOORBELL, value, Kind::Doorbell),
        property::PRIORITY => {
            let own = kernel
                .processor
                .current_dispatcher()
                .map(|own| own.priority);
            if value >= PRIORITIES as u64 {
                return Err(Error::BadArgument.into());
            }
            if own.is_none_or(|own| value > u64::from(own)) {
                return Err(Error::NotAllowed.into());
            }
            kernel.processor.set_priority(handle, value as u8);
            DONE
        }
        property::PAGED if value > more || more > USER_END => Err(Error::BadArgument.into()),
        property::PAGED => {
            let dispatcher = kernel.processor.dispatcher(handle);
            let range = dispatcher.and_then(|one| one.paged.get_mut(number as usize));
            *range.ok_or(Error::BadArgument)? = value..more;
            DONE
        }
        property::NAME => {
            if let Some(dispatcher) = kernel.processor.dispatcher(handle) {
                dispatcher.name[..8].copy_from_slice(&value.to_le_bytes());
                dispatcher.name[8..].copy_from_slice(&more.to_le_bytes());
                recording::made(handle, &dispatcher.name);
            }
            DONE
        }
        _ => Err(Error::BadArgument.into()),
    }
}

fn endow(kernel: &mut Kernel, handle: usize, which: u64, address: u64, kind: Kind) -> Answer {
    kernel.find(address, kind, Rights::WRITE)?;
    let slot = kernel.slot(address)?;
    kernel.endow(handle, which, slot)?;
    DONE
}

pub fn state(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let handle = handle(kernel, arguments[0], Rights::READ)?;
    let dispatcher = kernel.processor.dispatcher(handle);
    let dispatcher = dispatcher.ok_or(Error::NotFound)?;
    let (rip, fault) = (dispatcher.registers.rip, dispatcher.fault);
    Ok(Outcome::Results(match dispatcher.state {
        State::Exited => {
            let status = u64::from(dispatcher.status as u32);
            [life::EXITED, status, 0, rip, 0, 0]
        }
        State::Faulted => [
            life::FAULTED,
            fault.vector,
            fault.error,
            rip,
            fault.address,
            0,
        ],
        _ if dispatcher.stopped => [life::STOPPED, 0, 0, rip, 0, 0],
        State::Paging => [
            life::PAGING,
            fault.vector,
            fault.error,
            rip,
            fault.address,
            0,
        ],
        _ => [life::ALIVE, 0, 0, rip, 0, 0],
    }))
}

/// A register of a dispatcher by its number.
fn register(kernel: &mut Kernel, handle: usize, number: u64) -> Result<&mut u64, Error> {
    let dispatcher = kernel.processor.dispatcher(handle);
    let Registers {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rbp,
        rsp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
        all: _,
    } = &mut dispatcher.ok_or(Error::NotFound)?.registers;
    let all: [&mut u64; REGISTERS.len()] = [
        rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags,
    ];
    let found = all.into_iter().nth(number as usize);
    found.ok_or(Error::BadArgument)
}
