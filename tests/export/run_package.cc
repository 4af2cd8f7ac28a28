#include <dlfcn.h>
#include <fstream>
#include <iostream>
#include <iterator>
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/serialization/pickle.h>

// A program without Python: package, the kernels' library, x, y. It writes y = model(x), both as
// torch.save does.
int main(int, char** arguments) {
  if (!dlopen(arguments[2], RTLD_NOW)) {
    std::cerr << dlerror() << '\n';
    return 1;
  }
  std::ifstream file(arguments[3], std::ios::binary);
  std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  torch::inductor::AOTIModelPackageLoader model(arguments[1]);
  auto y = model.run({torch::jit::pickle_load(bytes).toTensor()}).at(0);
  auto written = torch::jit::pickle_save(y);
  std::ofstream(arguments[4], std::ios::binary).write(written.data(), written.size());
}
