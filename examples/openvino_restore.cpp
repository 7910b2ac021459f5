// Restores binary PPM frames with a file of `fairweather export rain rain.xml --to openvino`.
//
//     openvino_restore rain.xml frames.ppm restored.ppm [THREADS]
//
// A file may hold many frames, of any size, one after the other, and may be a pipe (/dev/stdin).
// A frame goes through the network as a whole, which gives the pixels of
// fairweather.Restorer(weights, tile=None, levels=0) to within one of 255 steps. Weights with a
// global context also need NAME.look.xml; those with `proxy` in their metadata are refused.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

struct Frame {
    std::size_t height = 0, width = 0;
    std::vector<std::uint8_t> pixels;  // RGB, row by row
};

std::size_t read_number(std::istream& file) {
    while ((file >> std::ws).peek() == '#')
        file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    std::size_t number = 0;
    if (!(file >> number) || number < 1 || number > 16384)
        throw std::runtime_error("a frame's header is damaged, or a side is longer than 16384");
    return number;
}

// Reads the next frame; false at the end of the file.
bool read_frame(std::istream& file, Frame& frame) {
    if (file.peek() == std::istream::traits_type::eof()) return false;
    if (file.get() != 'P' || file.get() != '6')
        throw std::runtime_error("a frame is no binary PPM: it does not begin with P6");
    frame.width = read_number(file);
    frame.height = read_number(file);
    if (read_number(file) != 255) throw std::runtime_error("a frame does not have 8 bits");
    file.get();  // the one white space before the pixels
    frame.pixels.resize(frame.height * frame.width * 3);
    if (!file.read(reinterpret_cast<char*>(frame.pixels.data()), frame.pixels.size()))
        throw std::runtime_error("the last frame is cut off");
    return true;
}

// Loads a network so that its input `image` takes (1, H, W, 3) bytes.
ov::InferRequest load(ov::Core& core, const std::filesystem::path& path, int threads) {
    auto model = core.read_model(path.string());
    const std::string proxy = "proxy";
    if (model->has_rt_info("fairweather", proxy))
        throw std::runtime_error(path.string() + " alone cannot restore a frame: " +
                                 model->get_rt_info<std::string>("fairweather", proxy));
    ov::preprocess::PrePostProcessor steps(model);
    auto& image = steps.input("image");
    image.tensor().set_element_type(ov::element::u8).set_layout("NHWC");
    image.preprocess().convert_element_type(ov::element::f32).scale(255.0f);
    image.model().set_layout("NCHW");
    if (model->output().get_names().count("restored")) {
        steps.output().model().set_layout("NCHW");
        steps.output().tensor().set_layout("NHWC");
    }
    ov::AnyMap options{ov::hint::inference_precision(ov::element::f32),  // never bfloat16
                       ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
    if (threads > 0) options.insert(ov::inference_num_threads(threads));
    return core.compile_model(steps.build(), "CPU", options).create_infer_request();
}

void restore_all(const std::filesystem::path& path, std::istream& in, std::ostream& out, int n) {
    ov::Core core;
    ov::InferRequest restorer = load(core, path, n), looker;
    const bool has_context = restorer.get_compiled_model().inputs().size() > 1;
    if (has_context)
        looker = load(core, std::filesystem::path(path).replace_extension(".look.xml"), n);
    for (Frame frame; read_frame(in, frame);) {
        const auto start = std::chrono::steady_clock::now();
        const ov::Shape shape{1, frame.height, frame.width, 3};
        const ov::Tensor image(ov::element::u8, shape, frame.pixels.data());
        if (has_context) {
            looker.set_tensor("image", image);
            looker.infer();
            restorer.set_tensor("context", looker.get_output_tensor());
        }
        restorer.set_tensor("image", image);
        restorer.infer();
        const float* restored = restorer.get_output_tensor().data<float>();
        std::transform(restored, restored + frame.pixels.size(), frame.pixels.begin(),
                       [](float value) { return std::uint8_t(std::lrint(value * 255.0f)); });
        const auto taken = std::chrono::steady_clock::now() - start;
        std::cerr << frame.width << "x" << frame.height << ": "
                  << std::chrono::duration<double, std::milli>(taken).count() << " ms\n";
        out << "P6\n" << frame.width << " " << frame.height << "\n255\n";
        out.write(reinterpret_cast<const char*>(frame.pixels.data()), frame.pixels.size());
        if (!out.flush()) throw std::runtime_error("a restored frame cannot be written");
    }
}

int main(int count, char** words) try {
    if (count < 4 || count > 5) {
        std::cerr << "usage: openvino_restore MODEL.xml FRAMES.ppm RESTORED.ppm [THREADS]\n";
        return 2;
    }
    std::ifstream in(words[2], std::ios::binary);
    if (!in) throw std::runtime_error(std::string(words[2]) + " cannot be read");
    if (std::filesystem::is_regular_file(words[3]) &&
        std::filesystem::equivalent(words[2], words[3]))
        throw std::runtime_error(std::string(words[3]) + " is the input itself; choose another name");
    std::ofstream out(words[3], std::ios::binary);
    restore_all(words[1], in, out, count == 5 ? std::stoi(words[4]) : 0);
} catch (const std::exception& error) {
    std::cerr << "openvino_restore: " << error.what() << "\n";
    return 1;
}
