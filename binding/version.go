package binding

// #include <stdint.h>
// #include "hexkv.h"
// void hexkvGoLog(int level, char * text, void * user); // in callbacks.go
// static void hexkv_go_log(int level, const char * text, void * user) { hexkvGoLog(level, (char *) text, user); }
// static inline void hexkv_go_log_set(int on, int min_level) {
//     hexkv_log_set(on ? hexkv_go_log : NULL, NULL, min_level);
// }
import "C"

import "sync/atomic"

// VersionInfo is hexkv_version_info.
type VersionInfo struct {
	Version, Llama, Commit, Compiler, ISA string
}

// Version calls hexkv_version.
func Version() VersionInfo {
	var v C.hexkv_version_info
	C.hexkv_version(&v)
	return VersionInfo{text(&v.version), text(&v.llama), text(&v.commit), text(&v.compiler), text(&v.isa)}
}

// LogFunc receives one line; level as in hexkv_log_fn.
type LogFunc func(level int, line string)

var logFunc atomic.Pointer[LogFunc]

// SetLog calls hexkv_log_set. fn may be nil.
func SetLog(fn LogFunc, minLevel int) {
	if fn == nil {
		C.hexkv_go_log_set(0, 0)
		logFunc.Store(nil)
		return
	}
	logFunc.Store(&fn)
	C.hexkv_go_log_set(1, C.int(minLevel))
}
