package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
)

// interrupts turns Ctrl-C into cancellation. While a task runs, the first one cancels it and the next one leaves; while
// none runs, the first one leaves.
type interrupts struct {
	mu      sync.Mutex
	cancel  context.CancelFunc // of the running task; nil when there is none or it is cancelled already
	restore func()             // of the terminal, before leaving; may be nil
	exit    func(code int)
}

func newInterrupts(exit func(code int)) *interrupts { return &interrupts{exit: exit} }

// listen starts to receive signals.
func (i *interrupts) listen() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt)
	go func() {
		for range signals {
			i.signal()
		}
	}()
}

// signal handles one Ctrl-C.
func (i *interrupts) signal() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cancel != nil {
		i.cancel()
		i.cancel = nil
		return
	}
	if i.restore != nil {
		i.restore()
	}
	i.exit(exitInterrupted)
}

// task returns a context that the next Ctrl-C cancels, and a function that ends the task.
func (i *interrupts) task(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cancel = cancel
	return ctx, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.cancel = nil
		cancel()
	}
}

// idle ends the running task without cancelling it: from now on Ctrl-C leaves, until the next task begins.
func (i *interrupts) idle() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cancel = nil
}

// onExit sets what restores the terminal if Ctrl-C leaves; nil for nothing.
func (i *interrupts) onExit(restore func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.restore = restore
}
