package hexkv

import "github.com/hexkv/hexkv/binding"

// VersionInfo describes the linked library.
type VersionInfo struct {
	Version  string // of hexkv
	Llama    string // version of the pinned llama.cpp
	Commit   string // its commit or build name
	Compiler string
	ISA      string // instruction set of the HEX kernels in use: "ref", "avx2", "avx512"
}

// Version describes the linked library. Calls hexkv_version.
func Version() VersionInfo {
	v := binding.Version()
	return VersionInfo{v.Version, v.Llama, v.Commit, v.Compiler, v.ISA}
}

// LogLevel orders log lines.
type LogLevel int

// Levels of log lines.
const (
	LogDebug LogLevel = 1 + iota
	LogInfo
	LogWarn
	LogError
)

// SetLog sends llama.cpp's log lines of at least level min to fn, whole lines without the newline; nil drops them, which
// is the default. It is global. fn may be called on any goroutine, one line at a time, and must not call SetLog.
// Calls hexkv_log_set.
func SetLog(min LogLevel, fn func(level LogLevel, line string)) {
	if fn == nil {
		binding.SetLog(nil, 0)
		return
	}
	binding.SetLog(func(level int, line string) { fn(LogLevel(level), line) }, int(min))
}
