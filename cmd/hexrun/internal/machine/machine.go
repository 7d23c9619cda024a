// Package machine tells how busy a machine is with other work, so that a benchmark can warn.
package machine

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Others counts what other processes use from [Watch] on.
type Others struct {
	time0       time.Time
	busy0, own0 float64
	known       bool
}

// Watch begins to count.
func Watch() Others {
	busy, ok := busySeconds()
	return Others{time.Now(), busy, ownSeconds(), ok}
}

// Cores returns how many cores other processes have used since Watch, on average; false where the system does not say.
func (o Others) Cores() (float64, bool) {
	busy, ok := busySeconds()
	elapsed := time.Since(o.time0).Seconds()
	if !ok || !o.known || elapsed <= 0 {
		return 0, false
	}
	return max(0, (busy-o.busy0-(ownSeconds()-o.own0))/elapsed), true
}

func busySeconds() (float64, bool) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	return busyIn(string(stat))
}

// ticksPerSecond of /proc/stat: USER_HZ, which Linux fixes at 100 for programs.
const ticksPerSecond = 100

// busyIn sums user, nice, system, irq, softirq and steal of all CPUs: what a hypervisor takes is gone as well.
func busyIn(stat string) (float64, bool) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, false
	}
	ticks := 0.0
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return 0, false
		}
		ticks += n
	}
	return ticks / ticksPerSecond, true
}

func ownSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
